"""A plane is the unit of annotation: one index on one axis of a scan's own grid, drawn completely or not at all.

Arrays are in nnU-Net's order (as its reader returns them), axes 0, 1, 2. Everywhere a plane without its scan
is the pair (axis, index_orig).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Plane = tuple[int, int]


@dataclass(frozen=True, order=True)
class PlaneRef:
    """One plane of one scan, on the scan's own grid.

    Attributes:
        identifier: nnU-Net's name of the case, without file ending.
        axis: 0, 1 or 2, in nnU-Net's order.
        index_orig: place on that axis, from 0.
    """

    identifier: str
    axis: int
    index_orig: int

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise ValueError(f"{self}: axis must be 0, 1 or 2")
        if self.index_orig < 0:
            raise ValueError(f"{self}: index_orig must not be negative")

    @property
    def plane(self) -> Plane:
        """The pair (axis, index_orig)."""
        return self.axis, self.index_orig


def plane_index(plane: Plane, ndim: int = 3) -> tuple[slice | int, ...]:
    """What to write in array[...] to read or set one plane of an array."""
    axis, index = plane
    return tuple(index if a == axis else slice(None) for a in range(ndim))


def whole_plane(shape: tuple[int, ...]) -> Plane | None:
    """The plane that is the whole scan, where it has one slice along some axis (2D data); else None.

    >>> whole_plane((1, 40, 50)), whole_plane((5, 6, 7))
    ((0, 0), None)
    """
    return next(((axis, 0) for axis, length in enumerate(shape) if length == 1), None)


def plane_mask(shape: tuple[int, ...], planes: Iterable[Plane]) -> np.ndarray:
    """Bool array of this shape, True on every voxel of any of the planes.

    Raises:
        ValueError: if a plane lies outside the shape.
    """
    mask = np.zeros(shape, dtype=bool)
    for axis, index in planes:
        if not 0 <= axis < len(shape):
            raise ValueError(f"plane (axis {axis}, index {index}): axis outside 0..{len(shape) - 1}")
        if not 0 <= index < shape[axis]:
            raise ValueError(f"plane (axis {axis}, index {index}): index outside 0..{shape[axis] - 1}")
        mask[plane_index((axis, index), len(shape))] = True
    return mask


def keep_planes(labels: np.ndarray, planes: Iterable[Plane], ignore_label: int) -> np.ndarray:
    """A copy of labels in which everything outside the planes is ignore_label; dtype as before, widened if needed."""
    dtype = np.result_type(labels.dtype, np.min_scalar_type(ignore_label))
    return np.where(plane_mask(labels.shape, planes), labels, np.array(ignore_label, dtype=dtype)).astype(
        dtype, copy=False
    )


def drawn_planes(labels: np.ndarray, ignore_label: int) -> list[Plane]:
    """All planes in which every voxel is drawn (differs from ignore_label), sorted by axis and index.

    A densely labelled scan returns every plane of every axis, an unlabelled one none, a 2D image its one slice.
    """
    drawn = labels != ignore_label
    whole = whole_plane(labels.shape)
    axes = range(labels.ndim) if whole is None else whole[:1]
    return [plane for axis in axes for plane in _planes_where(_along(drawn, axis).all(axis=1), axis)]


def covering_planes(labels: np.ndarray) -> list[Plane]:
    """A small set of planes that holds every foreground voxel: which planes were probably drawn.

    A user who drew on one plane leaves marks in every plane that crosses it, so planes with any mark are not all
    drawn ones. Here planes are chosen greedily: each time the one that holds most of the voxels not yet held, where
    voxels in a filled 2 x 2 square of the plane count first (a crossing plane holds lines and stripes, not areas).
    Ties go to the axis chosen most often so far, then to the lower axis and index.

    Args:
        labels: integer array, 0 where background or not drawn.

    Returns:
        Sorted planes; empty when every voxel is 0.
    """
    left = labels != 0
    in_area = [_in_square(left, axis) for axis in range(left.ndim)]
    chosen: list[Plane] = []
    while left.any():
        best = max(_candidates(left, in_area, chosen))[-1]
        best = (-best[0], -best[1])
        chosen.append(best)
        left[plane_index(best, left.ndim)] = False
    return sorted(chosen)


def _candidates(left: np.ndarray, in_area: list[np.ndarray], chosen: list[Plane]) -> list[tuple[int, int, int, Plane]]:
    """For each plane: voxels left in filled areas, voxels left, planes chosen on its axis, its negated place."""
    candidates = []
    for axis in range(left.ndim):
        areas = _along(left & in_area[axis], axis).sum(axis=1)
        held = _along(left, axis).sum(axis=1)
        used = sum(plane[0] == axis for plane in chosen)
        candidates += [(int(areas[i]), int(held[i]), used, (-axis, -int(i))) for i in np.flatnonzero(held)]
    return candidates


def _in_square(mask: np.ndarray, axis: int) -> np.ndarray:
    """True where a voxel belongs to a filled 2 x 2 square of its plane across the axis."""
    moved = np.moveaxis(mask, axis, 0)
    square = moved[:, 1:, 1:] & moved[:, 1:, :-1] & moved[:, :-1, 1:] & moved[:, :-1, :-1]
    result = np.zeros_like(moved)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            result[:, rows, columns] |= square
    return np.moveaxis(result, 0, axis)


def roi_middle_planes(labels: np.ndarray) -> list[Plane]:
    """One plane on each axis, through the middle of the box around all foreground voxels.

    The middle of first..last is (first + last) // 2.

    Args:
        labels: dense labels, (X, Y, Z).

    Raises:
        ValueError: if there is no foreground voxel.
    """
    held = _foreground_planes(labels)
    return [(axis, int(indices[0] + indices[-1]) // 2) for axis, indices in enumerate(held)]


def random_planes(labels: np.ndarray, number: int, rng: np.random.Generator) -> list[Plane]:
    """Distinct planes through the foreground, the axes in turn (0, 1, 2, 0, ...), the index uniform on its axis.

    An axis whose foreground planes are used up is passed over.

    Args:
        labels: dense labels, (X, Y, Z).
        number: how many planes.
        rng: the only source of randomness.

    Raises:
        ValueError: if there is no foreground voxel, or fewer foreground planes than asked for.
    """
    held = _foreground_planes(labels)
    if number > sum(map(len, held)):
        raise ValueError(f"{number} planes asked for, but only {sum(map(len, held))} planes hold foreground")
    orders = [[int(i) for i in rng.permutation(indices)] for indices in held]
    chosen: list[Plane] = []
    while len(chosen) < number:
        for axis, order in enumerate(orders):
            if order and len(chosen) < number:
                chosen.append((axis, order.pop()))
    return sorted(chosen)


def _along(mask: np.ndarray, axis: int) -> np.ndarray:
    """The mask with one row for each plane of the axis, (planes, voxels of a plane)."""
    return np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)


def _planes_where(flags: ArrayLike, axis: int) -> list[Plane]:
    return [(axis, int(i)) for i in np.flatnonzero(flags)]


def _foreground_planes(labels: np.ndarray) -> list[np.ndarray]:
    """For each axis the sorted indices of the planes that hold foreground."""
    mask = labels != 0
    if not mask.any():
        raise ValueError("no foreground voxel, so no plane can go through it")
    return [np.flatnonzero(_along(mask, axis).any(axis=1)) for axis in range(mask.ndim)]
