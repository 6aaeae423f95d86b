"""Expert labels on the training grid: one file a scan, with the places of every class inside it.

The file <data_identifier>_gmabs/<case>_expert.b2nd holds int16 (1, X, Y, Z), the shape of nnU-Net's <case>_seg.b2nd:
the class that the expert drew, or the ignore label. Outside nnU-Net's nonzero mask (where its own labels are negative)
the value v is stored as -2 - v, so that the mask is not lost and -1 stays free for the loader's padding. Its vlmeta
"gmabs" says what the file was made from, and where each class lies; one swap replaces both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.data import preprocessed
from nnunet_gmabs.data.expert_build import expert_key, write_expert
from nnunet_gmabs.data.record import gmabs_folder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, sha256

if TYPE_CHECKING:
    import blosc2
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

Progress = Callable[[Sequence[str]], Iterable[str]]


def expert_file(pre: Path, data_identifier: str, identifier: str, own: Path | None = None) -> Path:
    """Where the expert labels of a scan on the training grid are.

    Args:
        pre: nnUNet_preprocessed/DatasetXXX_Name.
        data_identifier: of the configuration.
        identifier: of the scan.
        own: folder of one training, in which answers to its own questions come first; None: there is none.
    """
    name = f"{identifier}_expert.b2nd"
    if own is not None and (own / name).is_file():
        return own / name
    return gmabs_folder(pre, data_identifier) / name


def expert_labels(folder: Path, identifiers: Sequence[str], own: Path | None = None) -> Iterator[np.ndarray]:
    """(X, Y, Z) labels of an expert on the training grid, scan by scan.

    Args:
        folder: preprocessed data of the configuration.
        identifiers: of labelled scans.
        own: see expert_file.
    """
    for identifier in identifiers:
        yield decode(read_expert(expert_file(folder.parent, folder.name, identifier, own))[0][0])


def ensure_expert_labels(
    pre: Path,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: dict[str, Any],
    identifiers: Sequence[str],
    progress: Progress = iter,
) -> list[str]:
    """Build the expert files that are missing or outdated, from gt_segmentations and nnU-Net's preprocessed scans.

    Args:
        pre: nnUNet_preprocessed/DatasetXXX_Name.
        plans_manager: the plans the scans were preprocessed with.
        configuration_manager: their configuration.
        dataset_json: nnU-Net's, whose labels name the ignore label.
        identifiers: scans to look at.
        progress: wraps the scans that need work, for a progress bar.

    Returns:
        The identifiers whose file was built.

    Raises:
        InputError: if a scan is not preprocessed, or its labels cannot be read or do not fit.
    """
    folder = _Folder(Path(pre), plans_manager, configuration_manager, dataset_json)
    outdated = [identifier for identifier in identifiers if not folder.is_current(identifier)]
    for identifier in progress(outdated):
        folder.build(identifier)
    return outdated


def read_expert(path: Path) -> tuple[blosc2.NDArray, dict[str, Any]]:
    """The voxels, (1, X, Y, Z) int16, memory-mapped, and the metadata of one expert file."""
    import blosc2

    mapping = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: memory maps fail on Windows
    array = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **mapping)
    return array, array.schunk.vlmeta["gmabs"]


def class_locations(metadata: dict[str, Any]) -> dict[int, np.ndarray]:
    """For each class that is drawn (background too) at most 10,000 of its voxels, (n, 3) int32, n > 0."""
    stored = metadata["class_locations"]
    return {int(label): np.frombuffer(places, dtype=np.int32).reshape(-1, 3) for label, places in stored.items()}


def labelled_identifiers(pre: Path, data_identifier: str, identifiers: Iterable[str]) -> list[str]:
    """Those scans of which at least one voxel is drawn on the training grid, in the order given."""
    return [i for i in identifiers if read_expert(expert_file(pre, data_identifier, i))[1]["class_locations"]]


def decode(values: np.ndarray) -> np.ndarray:
    """Labels as drawn (or the ignore label) from stored values: undoes -2 - v outside the nonzero mask."""
    return np.where(values < -1, -2 - values, values)


class _Folder:
    """Where the inputs of one data folder's expert files are, and whether a file is still right."""

    def __init__(
        self,
        pre: Path,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ) -> None:
        self.pre = pre
        self.managers = plans_manager, configuration_manager
        self.file_ending = dataset_json["file_ending"]
        self.ignore_label = plans_manager.get_label_manager(dataset_json).ignore_label
        self.data_identifier = configuration_manager.data_identifier

    def is_current(self, identifier: str) -> bool:
        """Whether the file exists and was made from these labels for this grid."""
        path = expert_file(self.pre, self.data_identifier, identifier)
        if not path.is_file():
            return False
        try:
            _, metadata = read_expert(path)
        except Exception:  # blosc2 raises many kinds for a damaged file; it is simply made again
            return False
        key = expert_key(sha256(self.label_file(identifier)), self.properties(identifier), *self.managers)
        key["ignore_label"] = self.ignore_label
        return {name: metadata.get(name) for name in key} == key

    def label_file(self, identifier: str) -> Path:
        path = self.pre / "gt_segmentations" / f"{identifier}{self.file_ending}"
        if not path.is_file():
            raise InputError(f"{path} is missing. Run `gmabs prepare`.")
        return path

    def properties(self, identifier: str) -> dict[str, Any]:
        return preprocessed.properties(self.pre / self.data_identifier, identifier)

    def build(self, identifier: str) -> None:
        """Make the file of one scan, and swap it in."""
        seg_file = self.pre / self.data_identifier / f"{identifier}_seg.b2nd"
        if not seg_file.is_file():
            raise InputError(f"{seg_file} is missing: preprocessed by an old nnU-Net? Run `gmabs prepare`.")
        path = expert_file(self.pre, self.data_identifier, identifier)
        path.parent.mkdir(exist_ok=True)
        replace_atomically(
            path,
            lambda temporary: write_expert(
                temporary,
                self.label_file(identifier),
                self.properties(identifier),
                seg_file,
                *self.managers,
                self.ignore_label,
            ),
        )
