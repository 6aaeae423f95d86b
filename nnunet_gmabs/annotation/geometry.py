"""Where a label file lies in space, and how it lies on the grid of its scan: the same, a part of it, or neither.

Sizes, spacings and places are in SimpleITK's order x, y, z; arrays are z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.errors import InputError

CURE = "export it again on the grid of the image (3D Slicer: choose the image as reference volume)"


@dataclass(frozen=True)
class Grid:
    """Size in voxels, spacing in mm, origin in mm (x, y, z), and direction (columns are the axes).

    A file of two axes is one slice, as programs for volumes read it; axes tells the two apart.
    """

    size: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray
    axes: int = 3

    @staticmethod
    def of(image: Any) -> Grid:
        """Of a SimpleITK image, or of a reader that has read a file's header; only the first three axes."""
        axes = min(image.GetDimension(), 3)
        direction = np.eye(3)
        direction[:axes, :axes] = np.array(image.GetDirection()).reshape([image.GetDimension()] * 2)[:axes, :axes]
        return Grid(
            np.array([*image.GetSize(), 1][:3]),
            np.array([*image.GetSpacing(), 1.0][:3]),
            np.array([*image.GetOrigin(), 0.0][:3]),
            direction,
            axes,
        )


def grid_of_file(path: Path) -> Grid:
    """The grid that the header of an image file tells."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Grid.of(reader)


def offset_on(grid: Grid, reference: Grid) -> tuple[int, int, int]:
    """How many voxels x, y, z from the reference's first voxel that of the other grid lies.

    Returns:
        (0, 0, 0) for the same grid; other values for one that is cut out of the reference.

    Raises:
        InputError: if the axes run another way, voxels have another size or lie between those of the reference, the
            grid is as large as the reference but moved, or reaches outside of it; or if only the reference has three.
    """
    if grid.axes < reference.axes:
        raise InputError(f"has {grid.axes} axes; labels of a scan of three have three")
    smallest = reference.spacing.min()
    if np.abs(grid.spacing - reference.spacing).max() > 1e-3 * smallest:
        raise InputError(f"voxels of {_mm(grid.spacing)}, the image has {_mm(reference.spacing)}; {CURE}")
    shift_mm = grid.origin - reference.origin
    if np.abs(grid.direction - reference.direction).max() > 1e-3:
        raise InputError(
            f"{_turned(grid, reference)}; its first voxel is shifted by {_mm(shift_mm, signed=True)}; {CURE}"
        )
    offset = np.linalg.solve(reference.direction * reference.spacing, shift_mm)
    whole = np.round(offset)
    same_size = np.array_equal(grid.size, reference.size)
    if np.abs(offset - whole).max() > 0.02 or (same_size and whole.any()):
        voxels = " x ".join(f"{o:+.2f}" for o in offset.round(2) + 0.0)  # + 0.0: no -0.00
        raise InputError(f"shifted by {voxels} voxels ({_mm(shift_mm, signed=True)}) against the image; {CURE}")
    if (whole < 0).any() or (whole + grid.size > reference.size).any():
        raise InputError(
            f"covers voxels {_range(whole, whole + grid.size)} of an image that has {_range(0, reference.size)}; "
            f"is it another scan? Otherwise {CURE}"
        )
    return int(whole[0]), int(whole[1]), int(whole[2])


def embed(values: np.ndarray, offset: tuple[int, int, int], size: np.ndarray) -> np.ndarray:
    """Values (z, y, x) put into an array of zeros of the reference's size (x, y, z), at an offset (x, y, z)."""
    whole = np.zeros(tuple(int(n) for n in size[::-1]), dtype=values.dtype)
    places = tuple(slice(o, o + n) for o, n in zip(offset[::-1], values.shape, strict=True))
    whole[places] = values
    return whole


def _turned(grid: Grid, reference: Grid) -> str:
    """In words, how the axes differ."""
    cosines = (grid.direction * reference.direction).sum(axis=0)
    flipped = [axis for axis, cosine in zip("xyz", cosines, strict=True) if cosine < -0.999]
    if flipped and all(abs(cosine) > 0.999 for cosine in cosines):
        return f"axis {' and '.join(flipped)} runs the other way than in the image (flipped)"
    worst = np.degrees(np.arccos(np.clip(cosines, -1, 1))).max()
    return f"its axes are turned by up to {worst:.1f} degrees against the image's"


def _mm(values: np.ndarray, signed: bool = False) -> str:
    return " x ".join(f"{v:+.3f}" if signed else f"{v:.3f}" for v in values) + " mm"


def _range(low: Any, high: np.ndarray) -> str:
    return " x ".join(f"{int(a)}..{int(b) - 1}" for a, b in zip(np.broadcast_to(low, 3), high, strict=True))
