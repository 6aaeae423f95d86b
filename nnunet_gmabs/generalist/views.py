"""A scan as three stacks of slices: which axes to look along, one slice out, one mask back.

Arrays end in the three axes X, Y, Z of the training grid (axes 0, 1, 2); what stands before (channels, classes)
is carried along. A slice keeps the order of the two axes that are left, so x of a prompt is the later one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ANISOTROPY_THRESHOLD = 3.0  # nnU-Net's ANISO_THRESHOLD


def view_axes(spacing_mm: Sequence[float], which: str = "all") -> list[int]:
    """The axes along which slices are shown to the generalist.

    "all": 0, 1, 2 (paper). "well-resolved": those whose slices have pixels with sides that differ by less than
    ANISOTROPY_THRESHOLD; where none has, the one that is nearest to square. A 2d configuration (two spacings) knows
    axis 0 only: its grid is (slices, Y, X), with slices of any distance.

    Args:
        spacing_mm: of the configuration, 3 or 2 numbers in nnU-Net's order.
        which: "all" or "well-resolved".

    Raises:
        ValueError: another name, or not 2 or 3 spacings.
    """
    if which not in ("all", "well-resolved"):
        raise ValueError(f"which is {which!r}; valid are 'all' and 'well-resolved'")
    if len(spacing_mm) == 2:
        return [0]
    ratios = [max(pair) / min(pair) for pair in (in_plane_spacing(spacing_mm, axis) for axis in range(3))]
    if which == "all":
        return [0, 1, 2]
    return [axis for axis in range(3) if ratios[axis] < ANISOTROPY_THRESHOLD] or [int(np.argmin(ratios))]


def in_plane_axes(axis: int) -> tuple[int, int]:
    """The other two of the axes 0, 1, 2, in order: rows and columns (y and x) of a slice."""
    rows, columns = (other for other in range(3) if other != axis)
    return rows, columns


def in_plane_spacing(spacing_mm: Sequence[float], axis: int) -> tuple[float, float]:
    """Spacing of a slice's rows and columns (y, x), from the three of its scan."""
    if len(spacing_mm) != 3:
        raise ValueError(f"{len(spacing_mm)} spacings; a scan has 3")
    rows, columns = in_plane_axes(axis)
    return float(spacing_mm[rows]), float(spacing_mm[columns])


def take_slice(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """One slice (..., H, W) of an array (..., X, Y, Z); a view of it, no copy."""
    return array[(slice(None),) * (array.ndim - 3 + axis) + (index,)]


def put_slice(array: np.ndarray, axis: int, index: int, values: np.ndarray) -> None:
    """Write values (..., H, W) to where take_slice reads them."""
    take_slice(array, axis, index)[...] = values


def slices_with(region: np.ndarray, axis: int) -> np.ndarray:
    """Indices along an axis, rising, of the slices in which a region (X, Y, Z) bool has a voxel."""
    return np.flatnonzero(region.any(axis=in_plane_axes(axis)))
