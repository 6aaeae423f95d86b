"""How one expert file is made: labels on the training grid, where each class lies, and what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.data.grid import TrainingGrid, labels_to_training_grid
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

FORMAT = 1
MAX_LOCATIONS = 10_000  # a class; as in nnU-Net's _sample_foreground_locations
LOCATION_SEED = 1234


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
