"""Segment Anything (Kirillov et al., ICCV 2023) as a generalist; MedSAM's weights and MobileSAM work the same way."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.prompts import Prompt
from nnunet_gmabs.generalist.sam_weights import check_model_type, find_weights, read_weights

MOBILE_SAM_SOURCE = "git+https://github.com/ChaoningZhang/MobileSAM.git"
DIGIT = 1024  # float16 holds whole numbers up to 2048


class SamGeneralist:
    """A Sam model behind the protocol of models.py.

    A slice is resized so that its longer side fills the encoder's input, and padded. The embedding is
    (C + 1, h, w) float16: the encoder's C feature maps, and one that starts with the slice's height and width.

    Args:
        sam: segment_anything's Sam or MobileSAM's, with its weights.
        name: "sam" or "mobile_sam".
        weights_hash: SHA-256 of the weights.
        device: torch device; on CUDA the encoder runs in bfloat16, or float16 where that is all there is.
        second_pass: ask a second time, with the best mask's logits as a prompt.
        slices_at_once: slices in one call of the encoder.
    """

    has_encoder = True
    wants_neighbours = False

    def __init__(
        self,
        sam: Any,
        name: str,
        weights_hash: str,
        device: Any = "cpu",
        second_pass: bool = False,
        slices_at_once: int = 8,
    ) -> None:
        self.sam = sam.eval().requires_grad_(False).to(device)
        self.name, self.weights_hash = name, weights_hash
        self.device = torch.device(device)
        self.second_pass, self.slices_at_once = second_pass, slices_at_once
        self.size: int = sam.image_encoder.img_size

    def encode(self, slice_2d: np.ndarray) -> np.ndarray:
        """(C + 1, h, w) float16 of one slice (H, W, 3) uint8."""
        return self.encode_many([slice_2d])[0]

    @torch.inference_mode()
    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The same for several slices, some at a time.

        Raises:
            InputError: the GPU has too little memory.
        """
        embeddings: list[np.ndarray] = []
        for start in range(0, len(slices), self.slices_at_once):
            part = slices[start : start + self.slices_at_once]
            try:
                features = self._features(torch.stack([self._input(slice_2d) for slice_2d in part]))
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"the GPU has too little memory for {len(part)} slices in one call of {self.name}'s encoder; set "
                    "generalist.slices_at_once to less"
                ) from error
            embeddings += [with_shape(f, s.shape[:2]) for f, s in zip(features, part, strict=True)]
        return embeddings

    def segment(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) bool and qualities (N,) float32 for the prompts of one slice, in one call of the decoder."""
        return self.segment_many([(embedding, prompts)])[0]

    @torch.inference_mode()
    def segment_many(self, items: Sequence[tuple[np.ndarray, Sequence[Prompt]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same for several slices; the decoder takes one slice at a time."""
        return [self._segment(embedding, prompts) for embedding, prompts in items]

    def _input(self, slice_2d: np.ndarray) -> Tensor:
        """(3, size, size): resized, normalised, padded."""
        picture = torch.from_numpy(np.ascontiguousarray(slice_2d)).to(self.device).permute(2, 0, 1)[None].float()
        shape = self._resized(slice_2d.shape[:2])
        picture = functional.interpolate(picture, shape, mode="bilinear", align_corners=False, antialias=True)
        return self.sam.preprocess(picture)[0]

    def _features(self, batch: Tensor) -> np.ndarray:
        precision: Any = contextlib.nullcontext()
        if self.device.type == "cuda":
            half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
            precision = torch.autocast("cuda", half)
        with precision:
            return self.sam.image_encoder(batch).to(torch.float16).cpu().numpy()

    def _segment(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        features, shape = without_shape(embedding)
        if not prompts:
            return np.zeros((0, *shape), bool), np.zeros(0, np.float32)
        image = torch.from_numpy(features).to(self.device, torch.float32)[None]
        boxes, points = self._boxes(prompts, shape), self._points(prompts, shape)
        logits, quality = self._best(*self._decode(image, boxes, points, None, several=True))
        if self.second_pass:
            logits, quality = self._best(*self._decode(image, boxes, points, logits, several=False))
        masks = self.sam.postprocess_masks(logits, self._resized(shape), shape)[:, 0] > self.sam.mask_threshold
        return masks.cpu().numpy(), quality.clamp(0, 1).float().cpu().numpy()

    def _decode(
        self, image: Tensor, boxes: Tensor, points: tuple[Tensor, Tensor] | None, masks: Tensor | None, several: bool
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (N, M, h, w) and predicted IoU (N, M)."""
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        positions = self.sam.prompt_encoder.get_dense_pe()
        return self.sam.mask_decoder(image, positions, sparse, dense, multimask_output=several)

    @staticmethod
    def _best(logits: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Of each prompt's masks the one with the highest predicted IoU: (N, 1, h, w) and (N,)."""
        best = quality.argmax(1)
        rows = torch.arange(len(best), device=best.device)
        return logits[rows, best][:, None], quality[rows, best]

    def _boxes(self, prompts: Sequence[Prompt], shape: tuple[int, int]) -> Tensor:
        corners = np.stack([np.asarray(prompt.box_xyxy, float).reshape(2, 2) for prompt in prompts])
        edges = corners + np.array([[-0.5], [0.5]])  # our boxes include their last pixels, Sam's end at an edge
        return self._to_input(edges, shape).reshape(-1, 4)

    def _points(self, prompts: Sequence[Prompt], shape: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """(N, P, 2) and labels (N, P), filled up with label -1, "not a point"; None where no prompt has any."""
        most = max(len(prompt.point_labels) for prompt in prompts)
        if most == 0:
            return None
        points, labels = np.zeros((len(prompts), most, 2)), np.full((len(prompts), most), -1)
        for row, prompt in enumerate(prompts):
            points[row, : len(prompt.point_labels)] = prompt.points_xy
            labels[row, : len(prompt.point_labels)] = prompt.point_labels
        return self._to_input(points, shape), torch.from_numpy(labels).to(self.device)

    def _to_input(self, points_xy: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """Pixels of the slice in pixels of the encoder's input; the model adds its own half pixel."""
        height, width = self._resized(shape)
        scale = np.array([width / shape[1], height / shape[0]])
        return torch.from_numpy((points_xy + 0.5) * scale - 0.5).to(self.device, torch.float32)

    def _resized(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(H, W) with the longer side as long as the encoder's input."""
        scale = self.size / max(shape)
        return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)


def with_shape(features: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Feature maps (C, h, w) float16 and one more that starts with height and width, two digits each."""
    plane = np.zeros(features.shape[1:], np.float16)
    plane.ravel()[:4] = [digit for length in shape for digit in divmod(length, DIGIT)]
    return np.concatenate([features, plane[None]])


def without_shape(embedding: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The feature maps, and (H, W) of the slice that they belong to."""
    digits = [int(value) for value in embedding[-1].ravel()[:4]]
    return embedding[:-1], (digits[0] * DIGIT + digits[1], digits[2] * DIGIT + digits[3])


def load_sam(
    model_type: str, checkpoint: Path | None, device: Any = "cpu", second_pass: bool = False, slices_at_once: int = 8
) -> SamGeneralist:
    """A Sam with weights from a file.

    Args:
        model_type: "vit_b", "vit_l", "vit_h", or "vit_t" for MobileSAM.
        checkpoint: the file; None: the usual one in the folder for weights (sam_weights.py).
        device: see SamGeneralist.
        second_pass: see SamGeneralist.
        slices_at_once: see SamGeneralist.

    Raises:
        InputError: weights missing, damaged or of another model; MobileSAM not installed.
    """
    build = _builder(model_type)
    path = find_weights(model_type, checkpoint)
    state, digest = read_weights(path)
    check_model_type(state, model_type, path)
    sam = build(checkpoint=None)
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit segment-anything's {model_type}; {error}") from error
    name = "mobile_sam" if model_type == "vit_t" else "sam"
    return SamGeneralist(sam, name, digest, device, second_pass, slices_at_once)


def _builder(model_type: str) -> Any:
    """The function that builds an untrained model."""
    if model_type == "vit_t":
        try:
            from mobile_sam import sam_model_registry
        except ImportError as error:
            raise InputError(
                f"MobileSAM is not installed ({error}), and is not on the package index; install it by "
                f"pip install {MOBILE_SAM_SOURCE} timm"
            ) from error
    else:
        from segment_anything import sam_model_registry
    return sam_model_registry[model_type]
