"""Square crops around prompts, resampled to a fixed size, and masks back into the slice: pure functions.

Pixel i covers [i - 0.5, i + 0.5], in the slice and in the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MARGIN = 1.5
"""Side of the crop over the longer side of the box: room for what a box too narrow has cut off."""
BORDER = 6.0
"""Pixels added to that, so that a small box still shows its surroundings."""


@dataclass(frozen=True)
class Window:
    """A square in a slice: centre and side in pixels; it may reach over the edge of the slice."""

    centre_x: float
    centre_y: float
    side: float

    def positions(self, size: int, axis: str) -> np.ndarray:
        """Where the centres of the crop's pixels lie in the slice along "x" or "y", (size,) float."""
        centre = self.centre_x if axis == "x" else self.centre_y
        return centre + self.side * ((np.arange(size) + 0.5) / size - 0.5)

    def to_crop(self, points_xy: np.ndarray, size: int) -> np.ndarray:
        """Points of the slice, (..., 2) as (x, y), in pixels of the crop."""
        return (np.asarray(points_xy) - (self.centre_x, self.centre_y)) * (size / self.side) + (size - 1) / 2


def window_around(box_xyxy: np.ndarray) -> Window:
    """The window of a prompt: concentric with its box, larger by MARGIN and BORDER."""
    x0, y0, x1, y1 = map(float, box_xyxy)
    side = MARGIN * max(x1 - x0 + 1, y1 - y0 + 1) + BORDER
    return Window((x0 + x1) / 2, (y0 + y1) / 2, side)


def box_in_crop(window: Window, box_xyxy: np.ndarray, size: int) -> np.ndarray:
    """An inclusive box of the slice as an inclusive box of the crop, (4,) float32: its outer edges coincide."""
    low, high = window.to_crop(box_xyxy[:2] - 0.5, size), window.to_crop(box_xyxy[2:] + 0.5, size)
    return np.concatenate([low + 0.5, high - 0.5]).astype(np.float32)


def interpolation_matrix(positions: np.ndarray, length: int) -> np.ndarray:
    """Weights of `length` pixels for values at given positions: linear, a wider triangle where pixels get larger.

    w_ij = max(0, 1 - |x_i - j| / s),  s = max(1, step of the positions),  rows normalised to 1

    Positions outside the pixels take the nearest pixel's value.

    Args:
        positions: (n,) float, equally spaced, in pixels.
        length: number of pixels.

    Returns:
        (n, length) float32.
    """
    step = abs(float(positions[-1] - positions[0])) / (len(positions) - 1) if len(positions) > 1 else 1.0
    clamped = np.clip(positions, 0, length - 1)
    weights = np.maximum(0, 1 - np.abs(clamped[:, None] - np.arange(length)) / max(1.0, step))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def cut(planes: np.ndarray, window: Window, size: int) -> np.ndarray:
    """The window of a stack of planes, resampled to size x size.

    Args:
        planes: (C, H, W) numbers; beyond its edge the nearest pixel counts.
        window: where.
        size: of the crop, in pixels.

    Returns:
        (C, size, size) float32.
    """
    (y, rows), (x, columns) = (
        _near(window.positions(size, axis), length) for axis, length in (("y", planes.shape[1]), ("x", planes.shape[2]))
    )
    region = planes[:, rows, columns].astype(np.float32)
    down = interpolation_matrix(y, region.shape[1])
    across = interpolation_matrix(x, region.shape[2])
    return down @ region @ across.T


def paste(crop: np.ndarray, window: Window, shape: tuple[int, int], outside: float) -> np.ndarray:
    """A resampled crop back in its slice, linear.

    Args:
        crop: (size, size) float, such as logits.
        window: where it was cut.
        shape: (H, W) of the slice.
        outside: the value of pixels whose centre is not in the window.

    Returns:
        (H, W) float32.
    """
    result = np.full(shape, outside, np.float32)
    rows, columns = (
        _inside(centre, window.side, length)
        for centre, length in ((window.centre_y, shape[0]), (window.centre_x, shape[1]))
    )
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return result
    size = len(crop)
    y, x = (
        (np.arange(part.start, part.stop) - centre) * (size / window.side) + (size - 1) / 2
        for part, centre in ((rows, window.centre_y), (columns, window.centre_x))
    )
    result[rows, columns] = interpolation_matrix(y, size) @ crop.astype(np.float32) @ interpolation_matrix(x, size).T
    return result


def _near(positions: np.ndarray, length: int) -> tuple[np.ndarray, slice]:
    """The pixels that positions can reach, and the positions counted from the first of them."""
    reach = 1 + max(1.0, (positions[-1] - positions[0]) / max(1, len(positions) - 1))
    start = int(np.clip(np.floor(positions[0] - reach), 0, length - 1))
    stop = int(np.clip(np.ceil(positions[-1] + reach) + 1, start + 1, length))
    return positions - start, slice(start, stop)


def _inside(centre: float, side: float, length: int) -> slice:
    """The pixels whose centres lie in the window."""
    start = max(0, int(np.ceil(centre - side / 2)))
    return slice(start, max(start, min(length, int(np.floor(centre + side / 2)) + 1)))
