"""Planes painted one by one become one label map, and tell each other what stands on the lines where they cross."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunet_gmabs.annotation.planes import Plane, plane_index

NOTHING = 255  # nobody has said anything about this voxel; no label value is that high


@dataclass(frozen=True)
class Painted:
    """One plane as it is painted.

    Attributes:
        plane: which one.
        mask: uint8, its axes in the array's order; 0 = unpainted.
        done: unpainted means background.
    """

    plane: Plane
    mask: np.ndarray
    done: bool

    @property
    def said(self) -> np.ndarray:
        """Value of each voxel, NOTHING where the annotator has said nothing yet."""
        return self.mask if self.done else np.where(self.mask == 0, np.uint8(NOTHING), self.mask)


def compose(shape: tuple[int, ...], planes: Iterable[Painted], ignore_label: int) -> tuple[np.ndarray, int]:
    """The label map of all done planes, and at how many voxels done planes disagree.

    Where two planes disagree the later one in the list decides, as the later stroke does in every 3D editor.

    Args:
        shape: of the scan.
        planes: in the order in which they were last edited.
        ignore_label: goes wherever no done plane is.
    """
    labels = np.full(shape, ignore_label, np.int32)
    disagree = np.zeros(shape, bool)
    for painted in planes:
        if painted.done:
            index = plane_index(painted.plane)
            before = labels[index]
            disagree[index] |= (before != ignore_label) & (before != painted.mask)
            labels[index] = painted.mask
    return labels, int(disagree.sum())


def crossing_values(
    plane: Plane, shape: tuple[int, ...], others: Iterable[Painted], known: np.ndarray | None = None
) -> np.ndarray:
    """What is said on a plane by those that cross it, uint8, NOTHING elsewhere; its axes in the array's order.

    Args:
        plane: the plane to look at; it is passed over among the others.
        shape: of the scan.
        others: painted planes of any axis, in the order in which they were last edited.
        known: (X, Y, Z) uint8, what is drawn already, NOTHING elsewhere. A plane that is drawn as a whole was merged
            and is being corrected: what stands there is no other plane's.
    """
    axis, index = plane
    left = [a for a in range(3) if a != axis]
    nothing = np.full([shape[a] for a in left], NOTHING, np.uint8)
    values = nothing if known is None else known[plane_index(plane)].copy()
    if (values != NOTHING).all():
        values = nothing
    for other in others:
        other_axis, other_index = other.plane
        if other_axis == axis:
            continue
        # Both planes hold one line of voxels, which runs along the third axis.
        place_here = plane_index((left.index(other_axis), other_index), 2)
        place_there = plane_index(([a for a in range(3) if a != other_axis].index(axis), index), 2)
        line = other.said[place_there]
        values[place_here] = np.where(line == NOTHING, values[place_here], line)
    return values
