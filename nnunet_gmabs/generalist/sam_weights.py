"""Weights of segment-anything: where they are looked for, how they are read, and what they belong to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_gmabs.errors import InputError, first_line
from nnunet_gmabs.files import sha256

FOLDER_VARIABLE = "nnUNet_gmabs_weights"
DEFAULT_FOLDER = Path("~/.cache/nnunet_gmabs")
META = "https://dl.fbaipublicfiles.com/segment_anything/"
USUAL_FILES = {
    "vit_b": ("sam_vit_b_01ec64.pth", META + "sam_vit_b_01ec64.pth"),
    "vit_l": ("sam_vit_l_0b3195.pth", META + "sam_vit_l_0b3195.pth"),
    "vit_h": ("sam_vit_h_4b8939.pth", META + "sam_vit_h_4b8939.pth"),
    "vit_t": ("mobile_sam.pt", "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"),
}
"""Name and source of each model's weights."""
SHA256 = {
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    "mobile_sam.pt": "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
}
"""Of the published files, as several projects that check them agree; the hexadecimal part of Meta's names is no part
of it."""
WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
"""Width of the encoder, which tells Meta's models apart."""
WRAPPERS = ("model", "state_dict", "model_state_dict")


def find_weights(model_type: str, checkpoint: Path | None = None) -> Path:
    """The file to load: the given one, or the model's usual file in the folder for weights. Never downloads.

    The folder is $nnUNet_gmabs_weights, or ~/.cache/nnunet_gmabs where that is not set.

    Raises:
        InputError: there is no such file; the message says where to get it and where to put it.
    """
    name, source = USUAL_FILES[model_type]
    path = checkpoint or weights_folder() / name
    if path.is_file():
        return path
    raise InputError(
        f"{path}: no such file. Download {source} to {weights_folder() / name} (another folder: set "
        f"{FOLDER_VARIABLE}), or name your file in generalist.checkpoint"
    )


def weights_folder() -> Path:
    """Where weights are looked for."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, taken out of what they may be wrapped in, and the file's SHA-256.

    Raises:
        InputError: a published file with another content; a file that torch cannot read, or that holds more than
            tensors.
    """
    digest = sha256(path)
    expected = SHA256.get(path.name, digest)
    if digest != expected:
        raise InputError(
            f"{path}: SHA-256 is {digest}, the published file's is {expected}; the download is incomplete or altered. "
            "Download it again, or give your own weights another name"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        raise InputError(
            f"{path}: cannot be read as PyTorch weights ({first_line(error)}); the file is truncated, or no weights. "
            "Get it again"
        ) from error
    return unwrapped(content, path), digest


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """{'model': {...}} and the like taken off, and 'module.' before each name."""
    while isinstance(content, Mapping) and (key := next((k for k in WRAPPERS if _is_mapping(content, k)), None)):
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds {type(content).__name__}, not the weights of a model by name")
    names = list(content)
    prefix = "module." if all(str(name).startswith("module.") for name in names) else ""
    return {str(name)[len(prefix) :]: value for name, value in content.items()}


def model_type_of(state: Mapping[str, Any]) -> str:
    """vit_b, vit_l, vit_h, vit_t, or in words what else the weights look like."""
    names = state.keys()
    if "image_encoder.pos_embed" in names:
        width = int(state["image_encoder.pos_embed"].shape[-1])
        return WIDTHS.get(width, f"a segment-anything model with an encoder of width {width}")
    if any(name.startswith("image_encoder.layers.") for name in names):
        return "vit_t"
    if any(name.startswith("image_encoder.trunk.") for name in names):
        return "a SAM 2 model"
    if any(name.startswith("vision_encoder.") for name in names):
        return "a SamModel of the transformers package"
    if "network_weights" in names:
        return "an nnU-Net checkpoint"
    if any(name.startswith("blocks.") for name in names):
        return "an image encoder alone"
    return "something else"


def check_model_type(state: Mapping[str, Any], model_type: str, path: Path) -> None:
    """Raise InputError, naming both, unless the weights are of the model that the settings ask for."""
    found = model_type_of(state)
    if found == model_type:
        return
    cure = "name a file of the right model in generalist.checkpoint"
    if found in WIDTHS.values():
        cure = f"set generalist.name to sam and generalist.model_type to {found}, or {cure}"
    elif found == "vit_t":
        found, cure = "MobileSAM (vit_t)", f"set generalist.name to mobile_sam, or {cure}"
    raise InputError(f"{path}: looks like {found}, but the settings ask for {model_type}; {cure}")


def _is_mapping(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)
