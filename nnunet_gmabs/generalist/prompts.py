"""What the generalist is asked about one slice: a box around a region, and points inside and outside of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class Prompt:
    """One question about one slice (H, W): where exactly is the thing around here?

    Coordinates are pixel indices with x along the last axis. A box includes both of its corners.
    """

    box_xyxy: np.ndarray
    """(4,) float: x0, y0, x1, y1, inclusive."""
    points_xy: np.ndarray
    """(N, 2) float, N may be 0."""
    point_labels: np.ndarray
    """(N,) int: 1 inside the thing, 0 outside."""
    prior: np.ndarray | None = None
    """(H, W) float32 in [0, 1]: the specialist's probability, for generalists that can use it."""


def prompt_from_region(
    region: np.ndarray,
    similarity: np.ndarray,
    rng: np.random.Generator,
    max_outward: float = 0.1,
    num_positive: int = 5,
    prior: np.ndarray | None = None,
) -> Prompt | None:
    """The question to which the specialist's own answer is `region`.

    The box is the region's, each side moved outwards by a whole number of pixels, uniform from 0 to max_outward of
    the box's extent across that side (rounded), and clipped to the slice. Paper: 0 to 4 pixels of an atrium grid,
    whose boxes are some 40 wide. Ours: a share, so that small structures keep tight boxes.

    A region of more than num_positive pixels also gives points: its num_positive pixels most like the class, and
    the pixel of the whole slice outside of it least like the class. Ties: the pixel farther from the region's border
    first, then the earlier one in row-major order. Ours: the paper ranks by a softmax that saturates at 1.

    Args:
        region: (H, W) bool, the pixels of one class; parts need not touch.
        similarity: (H, W) float, how much more like the class than like any other, any range
            (prototypes.cosine_margin); may be constant or infinite.
        rng: draws the box; four draws for each region that is not empty.
        max_outward: share of the box's extent, at least 0.
        num_positive: positive points.
        prior: (H, W), passed on as it is.

    Returns:
        None for an empty region. No negative point where the region fills the slice.

    Raises:
        ValueError: region and similarity have different shapes, or similarity has NaN.
    """
    region = np.asarray(region, dtype=bool)
    similarity = np.asarray(similarity)
    if region.ndim != 2 or region.shape != similarity.shape:
        raise ValueError(f"region {region.shape} and similarity {similarity.shape} must be the same slice (H, W)")
    if np.isnan(similarity).any():
        raise ValueError("similarity has NaN; are there NaN in the features or in the scan?")
    if not region.any():
        return None
    box = widened_box(tight_box(region), region.shape, rng.random(4), max_outward)
    positive = negative = np.zeros((0, 2))
    if np.count_nonzero(region) > num_positive:
        positive = _most_alike(region, similarity, num_positive)
        negative = _least_alike_outside(region, similarity)
    labels = np.array([1] * len(positive) + [0] * len(negative), dtype=np.int64)
    return Prompt(box, np.concatenate([positive, negative]), labels, prior)


def tight_box(region: np.ndarray) -> np.ndarray:
    """(4,) float x0, y0, x1, y1, inclusive, of a region (H, W) that is not empty."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float64)


def widened_box(box_xyxy: np.ndarray, shape: tuple[int, ...], draws: np.ndarray, max_outward: float) -> np.ndarray:
    """The box with each side moved outwards by floor(u (m + 1)) pixels, m = max_outward times its extent, rounded.

    Args:
        box_xyxy: (4,) inclusive.
        shape: (H, W) of the slice, to which the result is clipped.
        draws: (4,) u in [0, 1), one a side.
        max_outward: at least 0.
    """
    x0, y0, x1, y1 = box_xyxy
    extents = np.array([x1 - x0 + 1, y1 - y0 + 1] * 2)
    most = np.floor(max_outward * extents + 0.5)
    outward = np.floor(draws * (most + 1))
    last = np.array([shape[1] - 1, shape[0] - 1])
    low, high = np.asarray(box_xyxy[:2]) - outward[:2], np.asarray(box_xyxy[2:]) + outward[2:]
    return np.concatenate([np.maximum(low, 0.0), np.minimum(high, last)])


def _most_alike(region: np.ndarray, similarity: np.ndarray, number: int) -> np.ndarray:
    """(number, 2) x, y of the pixels inside with the highest similarity, best first."""
    inside = np.flatnonzero(region)
    values = similarity.ravel()[inside]
    candidates = inside[values >= np.partition(values, -number)[-number]] if number else inside[:0]
    depth = np.zeros(region.shape)
    if len(candidates) > 1:  # the slice's edge is a border too
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    order = np.lexsort((candidates, -depth.ravel()[candidates], -similarity.ravel()[candidates]))
    return _xy(candidates[order[:number]], region.shape)


def _least_alike_outside(region: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """(1, 2) x, y of the pixel outside with the lowest similarity; (0, 2) when there is no outside."""
    outside = np.flatnonzero(~region)
    if not len(outside):
        return np.zeros((0, 2))
    values = similarity.ravel()[outside]
    candidates = outside[values == values.min()]
    if len(candidates) > 1:
        distance = ndimage.distance_transform_edt(~region).ravel()[candidates]
        candidates = candidates[np.argmax(distance)][None]  # the first of equals
    return _xy(candidates, region.shape)


def _xy(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.unravel_index(flat, shape)
    return np.stack([columns, rows], axis=1).astype(np.float64)
