"""A scan as the generalist sees it: 8-bit slices with square pixels, and prompts and masks there and back.

Pixel i covers [i - 0.5, i + 0.5]; resampling keeps the outer edges of a slice where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.crops import interpolation_matrix
from nnunet_gmabs.generalist.prompts import Prompt
from nnunet_gmabs.generalist.views import in_plane_spacing, take_slice

PERCENTILES = (0.5, 99.5)
SQUARE = 1.02
"""Pixels whose sides differ by less than 2 % are left as they are."""


class ScanImages:
    """The slices of one scan for a generalist.

    images = ScanImages(image, spacing_mm)
    mask = images.from_square(axis, generalist_mask(images.slice(axis, index), images.to_square(axis, prompt)))

    Args:
        image: (C, X, Y, Z) float, in any unit.
        spacing_mm: of the three axes; two numbers for a 2d configuration, whose slices lie along axis 0.
        channel: the one that is shown.
        window: values of image that become 0 and 255; None: the 0.5 and 99.5 percentile of the scan.
        neighbours: slices show previous slice, slice and next slice as red, green and blue, else three times the slice.
        name: of the scan, for messages.

    Raises:
        InputError: no such channel; values that are not finite.
    """

    def __init__(
        self,
        image: np.ndarray,
        spacing_mm: Sequence[float],
        channel: int = 0,
        window: tuple[float, float] | None = None,
        neighbours: bool = False,
        name: str = "the scan",
    ) -> None:
        if not 0 <= channel < len(image):
            raise InputError(
                f"{name}: the generalist is to see channel {channel}, but there are {len(image)} (counted from 0); "
                "set generalist.channel to one of them"
            )
        self.bytes = to_eight_bit(image[channel], window, name)
        self.spacing_mm = tuple(float(step) for step in spacing_mm)
        self.neighbours = neighbours

    def slice(self, axis: int, index: int) -> np.ndarray:
        """(H', W', 3) uint8 with square pixels; beyond the first and last slice these count again."""
        last = self.bytes.shape[axis] - 1
        steps = (-1, 0, 1) if self.neighbours else (0,)
        planes = np.stack([take_slice(self.bytes, axis, min(max(index + step, 0), last)) for step in steps])
        if self.square_shape(axis) != planes.shape[1:]:
            planes = np.rint(resample(planes, self.square_shape(axis))).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(planes if self.neighbours else planes.repeat(3, 0), 0, -1))

    def shape(self, axis: int) -> tuple[int, int]:
        """(H, W) of the scan's own slices along an axis."""
        height, width = (n for k, n in enumerate(self.bytes.shape) if k != axis)
        return height, width

    def square_shape(self, axis: int) -> tuple[int, int]:
        """(H', W') of the slices that the generalist sees."""
        if len(self.spacing_mm) == 2:
            return square_shape(self.shape(axis), self.spacing_mm)
        return square_shape(self.shape(axis), in_plane_spacing(self.spacing_mm, axis))

    def to_square(self, axis: int, prompt: Prompt) -> Prompt:
        """A prompt in pixels of the scan's slice, in those of the generalist's slice."""
        return prompt_to(prompt, self.shape(axis), self.square_shape(axis))

    def from_square(self, axis: int, masks: np.ndarray) -> np.ndarray:
        """Masks (..., H', W') bool of the generalist's slice as (..., H, W) bool of the scan's."""
        return masks_to(masks, self.shape(axis))


def to_eight_bit(image: np.ndarray, window: tuple[float, float] | None = None, name: str = "the scan") -> np.ndarray:
    """round(255 (v - low) / (high - low)), clipped to 0..255.

    Paper: minimum and maximum of each slice, which divides by zero on constant slices. Ours: percentiles of the
    whole scan, so that slices are alike.

    Args:
        image: of any shape.
        window: (low, high); None: the 0.5 and 99.5 percentile of the image.
        name: for messages.

    Returns:
        uint8 of the same shape; 0 everywhere for a constant image.

    Raises:
        InputError: NaN or infinite values.
    """
    if not np.isfinite(image).all():
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError(f"{name}: {bad} of {image.size} values are NaN or infinite; repair the image file")
    if not image.size:
        return np.zeros(image.shape, np.uint8)
    low, high = (float(v) for v in (np.percentile(image, PERCENTILES) if window is None else window))
    if window is None and high <= low:  # one value nearly everywhere: what is left of contrast is in the extremes
        low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    scaled = (image.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def plan_window(
    scheme: str,
    intensities: Mapping[str, Any] | None,
    low: float | None = None,
    high: float | None = None,
) -> tuple[float, float] | None:
    """The window of a CT on nnU-Net's training grid, where (v - mean) / sd has taken the place of HU.

    Args:
        scheme: nnU-Net's normalisation of the channel, such as "CTNormalization".
        intensities: foreground_intensity_properties_per_channel of the plan, of this channel.
        low: HU shown as black; None: percentile_00_5.
        high: HU shown as white; None: percentile_99_5.

    Returns:
        (low, high) in the units of the preprocessed image; None for anything but CT: use percentiles.

    Raises:
        InputError: a window for an image that is not CT, or an empty one.
    """
    if scheme != "CTNormalization":
        if low is not None or high is not None:
            raise InputError(
                f"generalist.window_low {low}, window_high {high}: only CT has a window, this channel is normalised by "
                f"{scheme}; leave both out"
            )
        return None
    if intensities is None:
        raise InputError("the plan has no intensities of this channel; plan the data set again (gmabs prepare)")
    low = float(intensities["percentile_00_5"]) if low is None else low
    high = float(intensities["percentile_99_5"]) if high is None else high
    if low >= high:
        raise InputError(f"generalist.window_low {low:g} is not below window_high {high:g} (HU); correct them")
    mean, sd = float(intensities["mean"]), max(float(intensities["std"]), 1e-8)
    return (low - mean) / sd, (high - mean) / sd


def square_shape(shape: tuple[int, int], spacing: Sequence[float]) -> tuple[int, int]:
    """(H', W') of a slice whose pixels are all as small as the smaller side; shape itself where they are square.

    >>> square_shape((10, 40), (3.0, 1.5))
    (20, 40)
    """
    finest = min(spacing)
    height, width = (
        n if step / finest < SQUARE else max(1, round(n * step / finest))
        for n, step in zip(shape, spacing, strict=True)
    )
    return height, width


def resample(planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Planes (..., H, W) at another size, (..., *shape) float32: linear, averaging where pixels grow."""
    result = np.asarray(planes, np.float32)
    if result.shape[-2] != shape[0]:
        result = _line(shape[0], result.shape[-2]) @ result
    if result.shape[-1] != shape[1]:
        result = result @ _line(shape[1], result.shape[-1]).T
    return result


def masks_to(masks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Masks (..., H, W) bool at another size, (..., *shape) bool: where more than half of a pixel is covered."""
    return masks if masks.shape[-2:] == shape else resample(masks, shape) > 0.5


def prompt_to(prompt: Prompt, shape: tuple[int, int], new_shape: tuple[int, int]) -> Prompt:
    """A prompt of a slice (H, W) in pixels of the same slice at another size; its box keeps its outer edges."""
    if shape == new_shape:
        return prompt
    scale = np.array([new_shape[1] / shape[1], new_shape[0] / shape[0]])  # x, y
    low, high = np.asarray(prompt.box_xyxy[:2]) - 0.5, np.asarray(prompt.box_xyxy[2:]) + 0.5
    return replace(
        prompt,
        box_xyxy=np.concatenate([(low + 0.5) * scale, (high + 0.5) * scale - 1]),
        points_xy=(np.asarray(prompt.points_xy) + 0.5) * scale - 0.5,
        prior=None if prompt.prior is None else resample(prompt.prior, new_shape),
    )


def _line(new: int, old: int) -> np.ndarray:
    """Interpolation from old pixels to new ones over the same length, (new, old)."""
    return interpolation_matrix((np.arange(new) + 0.5) * (old / new) - 0.5, old)
