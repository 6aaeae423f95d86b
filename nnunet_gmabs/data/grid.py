"""From a scan's own grid to the training grid, so that no labelled voxel is ever lost: the only such place.

nnU-Net resizes labels by interpolation and a threshold of one half, which thins out or drops a single labelled plane.
Here every axis is resized by counting: an axis that grows reads the nearest source voxel, an axis that shrinks sends
every source voxel to its nearest target voxel, and labels that meet there vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

NO_RESAMPLING = "no_resampling_hack"  # nnU-Net's function in plans that leave every scan on its own grid


@dataclass(frozen=True)
class TrainingGrid:
    """How nnU-Net's preprocessor turned one scan's own grid into its training grid: transpose, crop, resize.

    Attributes:
        transpose: axis a of the training grid was axis transpose[a] of the scan.
        shape_before_crop: shape after the transposition.
        box: for each axis of the training grid (first, one past last) of what was kept, before resizing.
        shape: shape of the training grid.
        spacing: its spacing in mm.
    """

    transpose: tuple[int, ...]
    shape_before_crop: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def from_properties(
        cls, properties: dict[str, Any], plans_manager: PlansManager, configuration_manager: ConfigurationManager
    ) -> TrainingGrid:
        """The grid as in nnU-Net's DefaultPreprocessor.run_case_npy, from the properties it stored in <case>.pkl."""
        from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

        transpose = tuple(int(a) for a in plans_manager.transpose_forward)
        box = tuple((int(first), int(end)) for first, end in properties["bbox_used_for_cropping"])
        spacing_orig = [properties["spacing"][a] for a in transpose]
        spacing = list(configuration_manager.spacing)
        if len(spacing) < len(box):  # 2d: slices keep their distance
            spacing = [spacing_orig[0], *spacing]
        if getattr(configuration_manager, "configuration", {}).get("resampling_fn_seg") == NO_RESAMPLING:
            spacing = spacing_orig
        shape = compute_new_shape([end - first for first, end in box], spacing_orig, spacing)
        return cls(
            transpose=transpose,
            shape_before_crop=tuple(int(n) for n in properties["shape_before_cropping"]),
            box=box,
            shape=tuple(int(n) for n in shape),
            spacing=tuple(float(s) for s in spacing),
        )

    def indices_prep(self, axis: int, index_orig: int) -> tuple[int, list[int]]:
        """Where a plane of the scan's own grid lies on the training grid.

        Returns:
            The axis of the training grid, and the indices on it that the plane reaches: one, or several where the
            axis grows, none where the plane lies outside the box that nnU-Net keeps.
        """
        axis_prep = self.transpose.index(axis)
        first, end = self.box[axis_prep]
        if not first <= index_orig < end:
            return axis_prep, []
        old, new = end - first, self.shape[axis_prep]
        source = index_orig - first
        if new < old:
            return axis_prep, [int(nearest_target(old, new)[source])]
        return axis_prep, np.flatnonzero(nearest_source(old, new) == source).tolist()


def labels_to_training_grid(
    labels_orig: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    ignore_label: int | None,
) -> np.ndarray:
    """Labels on the training grid: every labelled voxel inside nnU-Net's box labels its nearest voxel there.

    Args:
        labels_orig: (X, Y, Z) or (1, X, Y, Z) on the scan's own grid, as nnU-Net's reader returns them.
        properties: what nnU-Net's preprocessor stored for this scan (<case>.pkl).
        plans_manager: the plans the scan was preprocessed with.
        configuration_manager: their configuration.
        ignore_label: the value of voxels that are not labelled; None where every voxel is.

    Returns:
        int16, as many axes as labels_orig, the shape of nnU-Net's own preprocessed labels. A voxel holds the label of
        most of the labelled source voxels that reach it, the smaller label where two are equal, ignore_label where
        no labelled voxel reaches it.

    Raises:
        InputError: if the shape is not that of the scan when it was preprocessed.
    """
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration_manager)
    labels = labels_orig[0] if labels_orig.ndim == 4 else labels_orig
    labels = np.asarray(labels).transpose(grid.transpose)
    if labels.shape != grid.shape_before_crop:
        raise InputError(
            f"labels have shape {tuple(labels_orig.shape[-3:])}, but the scan was preprocessed with shape "
            f"{tuple(grid.shape_before_crop[grid.transpose.index(a)] for a in range(3))}: "
            "was it exported again? Run `gmabs prepare`."
        )
    labels = labels[tuple(slice(first, end) for first, end in grid.box)]
    result = resize_labels(labels, grid.shape, ignore_label)
    return result[None] if labels_orig.ndim == 4 else result


def labels_to_original_grid(
    labels: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    outside: int = 0,
) -> np.ndarray:
    """Labels (or any map) from the training grid on the scan's own grid: each voxel reads the nearest one.

    Args:
        labels: (X, Y, Z) on the training grid.
        properties: what nnU-Net's preprocessor stored for this scan (<case>.pkl).
        plans_manager: the plans the scan was preprocessed with.
        configuration_manager: their configuration.
        outside: value outside of the box that nnU-Net keeps.

    Raises:
        InputError: if the shape is not that of the scan's training grid.
    """
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration_manager)
    if labels.shape != grid.shape:
        raise InputError(f"labels have shape {labels.shape}, but the scan's training grid has {grid.shape}")
    sides = [end - first for first, end in grid.box]
    nearest = np.ix_(*(nearest_source(new, old) for new, old in zip(grid.shape, sides, strict=True)))
    result = np.full(grid.shape_before_crop, outside, dtype=labels.dtype)
    result[tuple(slice(first, end) for first, end in grid.box)] = labels[nearest]
    return result.transpose(np.argsort(grid.transpose))


def resize_labels(labels: np.ndarray, new_shape: tuple[int, ...], ignore_label: int | None) -> np.ndarray:
    """Labels on a grid of another shape over the same extent, without losing a labelled voxel.

    An axis that grows: target voxel i reads source voxel floor((i + 1/2) old / new). An axis that shrinks: source
    voxel j goes to target voxel floor((j + 1/2) new / old). The labelled source voxels that reach a target voxel
    vote; the majority wins, then the smaller label; ignore_label where none arrives.

    Args:
        labels: integers (floats are rounded), one axis for each entry of new_shape.
        new_shape: shape of the result.
        ignore_label: the value of voxels that are not labelled; None where every voxel is.

    Returns:
        int16, of new_shape.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        labels = np.rint(labels)
    labels = labels.astype(np.int16)
    shrinking = [axis for axis, (old, new) in enumerate(zip(labels.shape, new_shape, strict=True)) if new < old]
    if shrinking:
        labels = _vote(labels, {axis: new_shape[axis] for axis in shrinking}, ignore_label)
    for axis, (old, new) in enumerate(zip(labels.shape, new_shape, strict=True)):
        if new > old:
            labels = labels.take(nearest_source(old, new), axis=axis)
    return np.ascontiguousarray(labels)


def nearest_source(old: int, new: int) -> np.ndarray:
    """For each of new voxels the index of the old voxel in which its centre lies, (new,) int."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def nearest_target(old: int, new: int) -> np.ndarray:
    """For each of old voxels the index of the new voxel in which its centre lies, (old,) int."""
    return (2 * np.arange(old) + 1) * new // (2 * old)


def _vote(labels: np.ndarray, new_lengths: dict[int, int], ignore_label: int | None) -> np.ndarray:
    """Shrink some axes; each target voxel gets the most frequent label of the voxels that it collects.

    One label at a time, so that memory does not grow with the number of classes. Source voxels of one target voxel
    are neighbours and no target voxel is passed over, so reduceat over the first of each group counts them.
    """
    present = [int(v) for v in np.unique(labels) if v != ignore_label]
    shape = tuple(new_lengths.get(axis, n) for axis, n in enumerate(labels.shape))
    result = np.full(shape, 0 if ignore_label is None else ignore_label, dtype=np.int16)
    most = np.zeros(shape, dtype=np.int32)
    for value in present:  # ascending, and only a larger count replaces: ties stay with the smaller label
        counts = labels == value
        for axis, new in new_lengths.items():
            starts = np.searchsorted(nearest_target(labels.shape[axis], new), np.arange(new))
            counts = np.add.reduceat(counts, starts, axis=axis, dtype=np.int32)
        wins = counts > most
        result[wins] = value
        most[wins] = counts[wins]
    return result
