"""One scan as the painter needs it: its voxels, its geometry, and grey values as 16-bit pictures.

Arrays are (X, Y, Z) in nnU-Net's order. A browser gets pixels p in 0..65535 and shows low + step * p.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.painter.views import View, view_across
from nnunet_gmabs.annotation.planes import Plane, plane_index
from nnunet_gmabs.annotation.raw_folder import RawFolder

CT_WINDOW = (40.0, 400.0)  # level, width in HU: soft tissue
UNKNOWN_DIRECTION = np.eye(3)[:, ::-1]  # what readers without geometry mean: array axes z, y, x


@dataclass(frozen=True)
class Channel:
    """Grey values of one channel.

    Attributes:
        name: from dataset.json.
        pixels: (X, Y, Z) uint16.
        low: grey value of pixel 0.
        step: grey values between neighbouring pixel values.
        level: middle of the window shown first.
        width: width of that window.
    """

    name: str
    pixels: np.ndarray
    low: float
    step: float
    level: float
    width: float

    @property
    def is_ct(self) -> bool:
        """Grey values are Hounsfield units, so windows have names."""
        return self.name.strip().lower() == "ct"


class Scan:
    """One scan of a data set, read completely.

    Args:
        raw: the data set.
        identifier: the scan.

    Raises:
        InputError: if there is no such scan, or a file cannot be read.
    """

    def __init__(self, raw: RawFolder, identifier: str) -> None:
        images, self.properties = raw.read_image(identifier)
        self.identifier = identifier
        names = raw.dataset_json.get("channel_names", {})
        self.channels = [encode(image, str(names.get(str(i), f"channel {i}"))) for i, image in enumerate(images)]
        self.shape: tuple[int, ...] = images.shape[1:]
        self.spacing_mm = tuple(float(s) for s in self.properties["spacing"])
        direction = direction_of(self.properties)
        self.has_direction = direction is not None
        self.direction = UNKNOWN_DIRECTION if direction is None else direction

    @cached_property
    def views(self) -> tuple[View, View, View]:
        """How planes across axis 0, 1 and 2 are shown."""
        return view_across(0, self.direction), view_across(1, self.direction), view_across(2, self.direction)

    def picture(self, plane: Plane, channel: int = 0) -> np.ndarray:
        """Grey values of a plane for the screen, (rows, columns) uint16."""
        return self.views[plane[0]].to_screen(self.channels[channel].pixels[plane_index(plane)])

    def plane_shape(self, axis: int) -> tuple[int, int]:
        """Shape of a plane across an axis, its axes in the array's order."""
        rows, columns = (n for a, n in enumerate(self.shape) if a != axis)
        return rows, columns

    def picture_shape(self, axis: int) -> tuple[int, int]:
        """Rows and columns of a picture across an axis."""
        view = self.views[axis]
        return self.shape[view.row_axis], self.shape[view.column_axis]

    def pixel_mm(self, axis: int) -> tuple[float, float]:
        """Height and width of a picture's pixel across an axis."""
        view = self.views[axis]
        return self.spacing_mm[view.row_axis], self.spacing_mm[view.column_axis]


def encode(image: np.ndarray, name: str) -> Channel:
    """Grey values as 16 bits, exactly where they are integers with a range below 65536, and a window to begin with.

    The window holds 99 % of the values that are not the lowest (air, or what was masked away), judged by a million
    voxels at most; CT gets soft tissue. Values that are not finite become the lowest.
    """
    low = float(np.min(image, initial=np.inf, where=np.isfinite(image)))
    high = float(np.max(image, initial=-np.inf, where=np.isfinite(image)))
    if low > high:  # not one finite value
        low = high = 0.0
    exact = high - low < 65536 and all(((s == np.round(s)) | ~np.isfinite(s)).all() for s in image)
    step = 1.0 if exact or high == low else (high - low) / 65535
    pixels = np.empty(image.shape, np.uint16)
    for here, there in zip(image, pixels, strict=True):  # slice by slice: a whole CT in float64 takes a gigabyte
        there[...] = np.round((np.where(np.isfinite(here), here, low).astype(np.float64) - low) / step)
    sample = pixels.reshape(-1)[:: max(1, pixels.size // 1_000_000)]
    inner = sample[sample > 0]
    bounds = low + step * np.percentile(inner, (0.5, 99.5)) if inner.size else np.array([low, low + 1])
    level, width = float(bounds[0] + bounds[1]) / 2, max(float(bounds[1] - bounds[0]), step)
    channel = Channel(name, pixels, low, step, level, width)
    return Channel(name, pixels, low, step, *CT_WINDOW) if channel.is_ct else channel


def direction_of(properties: dict[str, Any]) -> np.ndarray | None:
    """World direction (ITK's axes) of the three array axes as columns of length 1; None where a reader tells none."""
    if "sitk_stuff" in properties:
        flat = properties["sitk_stuff"]["direction"]
        return np.asarray(flat, float).reshape(3, 3)[:, ::-1] if len(flat) == 9 else None
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), float)[:3, :3]
        to_itk = np.diag([-1.0, -1.0, 1.0])  # nibabel's x grows to the right, y to anterior
        return (to_itk @ affine / np.linalg.norm(affine, axis=0))[:, ::-1]
    return None
