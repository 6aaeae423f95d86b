"""What an expert drew in a scan, and whether all of it is there on the training grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.annotation.planes import Plane, drawn_planes
from nnunet_gmabs.data.expert import decode
from nnunet_gmabs.data.grid import TrainingGrid, nearest_target

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class Drawn:
    """What is drawn in a scan, on its own grid.

    Attributes:
        planes: complete planes, (axis, index_orig).
        voxels: how many voxels are drawn.
        size: how many there are.
        classes: values drawn, sorted.
    """

    planes: list[Plane]
    voxels: int
    size: int
    classes: list[int]


@dataclass(frozen=True)
class OnTrainingGrid:
    """What of it is on the training grid.

    Attributes:
        planes: complete planes of the scan's own grid that lie complete on the training grid, (axis, index_orig).
        outside: planes that lie outside the box that nnU-Net keeps, so that no training can use them.
        lost: planes inside the box of which something is missing; must be empty.
        voxels: labelled voxels of the training grid.
        lost_voxels: labelled voxels inside the box whose nearest voxel there is not labelled; must be 0.
    """

    planes: list[Plane] = field(default_factory=list)
    outside: list[Plane] = field(default_factory=list)
    lost: list[Plane] = field(default_factory=list)
    voxels: int = 0
    lost_voxels: int = 0


def count_drawn(labels_orig: np.ndarray, ignore_label: int | None) -> Drawn:
    """What is drawn in labels (X, Y, Z) on the scan's own grid."""
    ignore = _ignore_value(ignore_label)
    drawn = labels_orig != ignore
    classes = [int(v) for v in np.unique(labels_orig) if v != ignore]
    return Drawn(drawn_planes(labels_orig, ignore), int(drawn.sum()), drawn.size, classes)


def compare(
    labels_orig: np.ndarray,
    expert_values: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    ignore_label: int | None,
) -> OnTrainingGrid:
    """Look for everything that is drawn on the scan's own grid on the training grid.

    This does not use the code that brought it there, only the rule that a labelled voxel labels its nearest one.

    Args:
        labels_orig: (X, Y, Z), the scan's own grid.
        expert_values: (1, X, Y, Z), content of the expert file.
        properties: nnU-Net's, of the preprocessed scan.
        plans_manager: the plans it was preprocessed with.
        configuration_manager: their configuration.
        ignore_label: the value of voxels that are not drawn.
    """
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration_manager)
    ignore = _ignore_value(ignore_label)
    present = decode(expert_values[0]) != ignore
    cropped = labels_orig.transpose(grid.transpose)[tuple(slice(*side) for side in grid.box)] != ignore
    nearest = [nearest_target(old, new) for old, new in zip(cropped.shape, present.shape, strict=True)]
    lost_voxels = int((cropped & ~present[np.ix_(*nearest)]).sum())
    found, outside, lost = [], [], []
    for axis, index in drawn_planes(labels_orig, ignore):
        axis_prep, indices = grid.indices_prep(axis, index)
        if not indices:
            outside.append((axis, index))
        elif all(present.take(i, axis_prep).all() for i in indices):
            found.append((axis, index))
        else:
            lost.append((axis, index))
    return OnTrainingGrid(found, outside, lost, int(present.sum()), lost_voxels)


def per_axis(planes: Sequence[Plane]) -> tuple[int, int, int]:
    """How many of the planes lie across axis 0, 1 and 2."""
    counts = [sum(axis == a for axis, _ in planes) for a in range(3)]
    return counts[0], counts[1], counts[2]


def _ignore_value(ignore_label: int | None) -> int:
    """A value that no voxel has, where the data set has no ignore label."""
    return np.iinfo(np.int16).min if ignore_label is None else ignore_label
