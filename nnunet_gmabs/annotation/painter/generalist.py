"""One plane and its neighbours go to the generalist, and a mask comes back.

What answers is a function given from outside, so that this package knows no model:

    propose(planes: (3, H, W) uint8, pixel_mm, box_xyxy, points_xy, point_labels) -> (H, W) bool, quality

planes are the previous plane, the plane and the next one, windowed as the annotator sees them; at the scan's border
the last plane counts again. box_xyxy is (4,) float or None, points_xy (N, 2) float in x (column), y (row),
point_labels (N,) int, 1 = inside, 0 = outside; N may be 0 where there is a box. The middle of the first pixel is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.painter.scans import Scan
from nnunet_gmabs.annotation.planes import Plane


def ask(
    propose: Any, scan: Scan, plane: Plane, channel: int, window: tuple[float, float], prompt: dict[str, Any]
) -> tuple[np.ndarray, float]:
    """The generalist's mask for one plane.

    Args:
        propose: see above.
        scan: the scan.
        plane: the plane.
        channel: the channel that is shown.
        window: level and width of the grey values that are shown.
        prompt: "box": [x0, y0, x1, y1] or None, "points": [[x, y], ...], "point_labels": [1, 0, ...], in the screen's
            pixels.

    Returns:
        (rows, columns) bool for the screen, and the generalist's own estimate of its quality.

    Raises:
        RefusedError: if there is neither box nor point inside, or something is out of the picture.
    """
    planes = eight_bit_planes(scan, plane, channel, window)
    box, points, labels = checked(prompt, planes.shape[1:])
    mask, quality = propose(planes, scan.pixel_mm(plane[0]), box_xyxy=box, points_xy=points, point_labels=labels)
    return np.asarray(mask, bool), float(quality)


def eight_bit_planes(scan: Scan, plane: Plane, channel: int, window: tuple[float, float]) -> np.ndarray:
    """Previous plane, plane and next plane for the screen, (3, rows, columns) uint8."""
    axis, index = plane
    level, width = window
    shown = scan.channels[channel]
    places = [min(max(index + step, 0), scan.shape[axis] - 1) for step in (-1, 0, 1)]
    pixels = np.stack([scan.picture((axis, place), channel) for place in places])
    grey = (shown.low + shown.step * pixels - level) / max(width, shown.step) + 0.5
    return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def checked(prompt: dict[str, Any], shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Box, points and labels as arrays, known to lie inside a picture of this shape.

    Raises:
        RefusedError: if they do not, or nothing says where to look.
    """
    try:
        box = None if prompt.get("box") is None else np.array(prompt["box"], float).reshape(4)
        points = np.array(prompt.get("points") or [], float).reshape(-1, 2)
        labels = np.array(prompt.get("point_labels") or [], int).reshape(len(points))
    except (ValueError, TypeError) as error:
        raise RefusedError(422, f"box or points cannot be understood ({error})") from error
    if box is None and not (labels == 1).any():
        raise RefusedError(422, "draw a box or click into the structure first")
    corners = points if box is None else np.concatenate([points, box.reshape(2, 2)])
    if not ((corners >= -0.5).all() and (corners <= np.array(shape[::-1]) - 0.5).all()):
        raise RefusedError(422, "box or points lie outside the picture")
    return box, points, labels
