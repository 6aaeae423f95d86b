"""Expert labels on the training grid: one file a scan, with the places of every class inside it.

The file <data_identifier>_gmabs/<case>_expert.b2nd holds int16 (1, X, Y, Z), the shape of nnU-Net's <case>_seg.b2nd:
the class that the expert drew, or the ignore label. Outside nnU-Net's nonzero mask (where its own labels are negative)
the value v is stored as -2 - v, so that the mask is not lost and -1 stays free for the loader's padding. Its vlmeta
"gmabs" says what the file was made from, and where each class lies; one swap replaces both.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.data.grid import TrainingGrid, labels_to_training_grid
from nnunet_gmabs.data.record import gmabs_folder, require_prepared_where_it_matters
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, sha256

if TYPE_CHECKING:
    import blosc2
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

__all__ = [
    "class_locations",
    "decode",
    "ensure_expert_labels",
    "expert_file",
    "expert_key",
    "labelled_identifiers",
    "read_expert",
    "require_prepared_where_it_matters",
    "write_expert",
]

FORMAT = 1
MAX_LOCATIONS = 10_000  # a class; as in nnU-Net's _sample_foreground_locations
LOCATION_SEED = 1234
Progress = Callable[[Sequence[str]], Iterable[str]]


def expert_file(pre: Path, data_identifier: str, identifier: str) -> Path:
    """Where the expert labels of a scan on the training grid are."""
    return gmabs_folder(pre, data_identifier) / f"{identifier}_expert.b2nd"


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
        path = self.pre / self.data_identifier / f"{identifier}.pkl"
        if not path.is_file():
            raise InputError(f"{path} is missing: the scan is not preprocessed. Run `gmabs prepare`.")
        with open(path, "rb") as f:
            return pickle.load(f)

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


def expert_key(
    source_sha256: str,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
) -> dict[str, Any]:
    """What the content of an expert file depends on, as its metadata says it; equal keys mean it need not be built."""
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration_manager)
    return {
        "format": FORMAT,
        "source_sha256": source_sha256,
        "spacing": list(grid.spacing),
        "shape": list(grid.shape),
        "box": [list(side) for side in grid.box],
        "shape_before_crop": list(grid.shape_before_crop),
    }


def write_expert(
    path: Path,
    label_file: Path,
    properties: dict[str, Any],
    seg_file: Path,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    ignore_label: int | None,
) -> None:
    """Write one expert file, from labels on the scan's own grid and what nnU-Net's preprocessor made of the scan.

    Args:
        path: where to write; must not exist.
        label_file: labels on the scan's own grid.
        properties: content of nnU-Net's <case>.pkl.
        seg_file: nnU-Net's <case>_seg.b2nd, negative outside its nonzero mask.
        plans_manager: the plans the scan was preprocessed with.
        configuration_manager: their configuration.
        ignore_label: value of voxels that are not drawn, None where every voxel is.

    Raises:
        InputError: if the labels do not fit the scan.
    """
    import blosc2
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

    managers = plans_manager, configuration_manager
    metadata = expert_key(sha256(label_file), properties, *managers)
    labels_orig, _ = plans_manager.image_reader_writer_class().read_seg(str(label_file))
    try:
        labels = labels_to_training_grid(labels_orig, properties, *managers, ignore_label)
    except InputError as error:
        raise InputError(f"{label_file}: {error}") from error
    metadata["ignore_label"] = ignore_label
    metadata["class_locations"] = _sample_locations(labels[0], ignore_label)
    metadata["voxels"] = _count_voxels(labels, ignore_label)
    outside = blosc2.open(urlpath=str(seg_file), mode="r", dparams={"nthreads": 1})[:] < 0
    values = np.where(outside, -2 - labels, labels)
    blocks, chunks = comp_blosc2_params(values.shape, tuple(configuration_manager.patch_size), values.itemsize)
    array = blosc2.asarray(
        np.ascontiguousarray(values),
        urlpath=str(path),
        chunks=chunks,
        blocks=blocks,
        cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1},
    )
    array.schunk.vlmeta["gmabs"] = metadata


def _count_voxels(labels: np.ndarray, ignore_label: int | None) -> dict[str, int]:
    """Drawn voxels of each class, as {class: count}: the loader needs them to weigh the samples of locations."""
    values, counts = np.unique(labels, return_counts=True)
    return {str(v): n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v != ignore_label}


def _sample_locations(labels: np.ndarray, ignore_label: int | None) -> dict[str, bytes]:
    """At most MAX_LOCATIONS voxels of each class drawn, as {class: bytes of int32 (n, 3)}."""
    rng = np.random.default_rng(LOCATION_SEED)
    locations = {}
    for label in np.unique(labels):
        if label != ignore_label:
            flat = np.flatnonzero(labels == label)
            if len(flat) > MAX_LOCATIONS:
                flat = np.sort(rng.choice(flat, MAX_LOCATIONS, replace=False))
            places = np.stack(np.unravel_index(flat, labels.shape), axis=1)
            locations[str(int(label))] = places.astype(np.int32).tobytes()
    return locations
