"""Objects of an exemplar: cut out by their expert labels with what surrounds them (CMEMS 1).

The surroundings come along because an object alone would teach foreground only: a synthetic image is labelled where
something was pasted and nowhere else. Where only planes are drawn, the whole place of the object is copied as an
image, between the planes too, and its labels where they are drawn: a plane pasted as a sheet one voxel thick would show
as a sheet, and a network would learn to see sheets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull


@dataclass(frozen=True)
class CutOut:
    """A box of an exemplar around one object.

    Attributes:
        image: (channels, X, Y, Z) float32.
        labels: (X, Y, Z) int; the unknown label where the expert has drawn nothing.
        alpha: (X, Y, Z) float32 in [0, 1]: how much of the image is pasted. Labels count where it is 1.
        centre: the box's middle in the exemplar, each axis in [0, 1].
        dense: the expert has drawn every voxel of the exemplar.
    """

    image: np.ndarray
    labels: np.ndarray
    alpha: np.ndarray
    centre: tuple[float, ...]
    dense: bool


def cut_out_objects(
    image: np.ndarray, labels: np.ndarray, unknown: int | None, margin_voxels: float, spacing: Sequence[float]
) -> list[CutOut]:
    """Each connected piece of drawn foreground, all classes together, as one object; the largest first.

    alpha is 1 in the object's region and up to half the margin around it, and falls to 0 at the margin. The region is
    the piece itself; its convex hull where the expert has left undrawn voxels in its box.

    Args:
        image: (channels, X, Y, Z).
        labels: (X, Y, Z) int.
        unknown: label of voxels nobody has drawn; None when all are drawn.
        margin_voxels: of surroundings, in units of the smallest spacing.
        spacing: of the three axes.

    Returns:
        Empty when no foreground is drawn.
    """
    drawn = np.ones(labels.shape, bool) if unknown is None else labels != unknown
    pieces, number = ndimage.label(drawn & (labels > 0), structure=np.ones((3, 3, 3)))
    spacing_rel = np.asarray(spacing, float) / min(spacing)
    reach = np.ceil(margin_voxels / spacing_rel).astype(int)
    found = []
    for index, tight in enumerate(ndimage.find_objects(pieces, number), 1):
        box = tuple(
            slice(max(0, s.start - r), min(n, s.stop + r)) for s, r, n in zip(tight, reach, labels.shape, strict=True)
        )
        piece = pieces[box] == index
        region = piece if drawn[box].all() else convex_hull(piece, spacing_rel)
        distance = ndimage.distance_transform_edt(~region, sampling=spacing_rel)
        alpha = np.clip(2 - 2 * distance / margin_voxels, 0, 1) if margin_voxels else region.astype(float)
        middle = tuple((s.start + s.stop - 1) / 2 / max(1, n - 1) for s, n in zip(box, labels.shape, strict=True))
        part = np.array(image[(slice(None), *box)], np.float32)
        cut = CutOut(part, labels[box].copy(), alpha.astype(np.float32), middle, bool(drawn.all()))
        found.append((int(piece.sum()), cut))
    return [cut for _, cut in sorted(found, key=lambda pair: -pair[0])]


def convex_hull(piece: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: voxels in the convex hull of True voxels, each of which reaches half the smallest spacing.

    A piece in one plane gives that plane's hull, one voxel thick.
    """
    half = 0.5 * min(spacing)
    reach = half * np.concatenate([np.eye(3), -np.eye(3)])  # so that no piece is flat
    surface = np.argwhere(piece & ~ndimage.binary_erosion(piece)) * np.asarray(spacing, float)
    hull = ConvexHull((surface[:, None] + reach).reshape(-1, 3))
    grid = np.indices(piece.shape).reshape(3, -1).T * np.asarray(spacing, float)
    inside = np.ones(len(grid), bool)
    for equation in np.unique(hull.equations, axis=0):  # one by one: all at once would take facets x voxels numbers
        inside[inside] = grid[inside] @ equation[:3] + equation[3] <= 1e-6 * half
    return inside.reshape(piece.shape)
