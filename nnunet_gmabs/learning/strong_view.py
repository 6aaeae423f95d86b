"""The strongly perturbed view of an image: intensities only, so that labels fit it voxel by voxel.

The kinds are those of nnU-Net's augmentation, stronger and out of place, each sample's from an explicit generator
(nnU-Net's own transforms write into the image and draw from global states).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_gmabs.learning.perturb import apply_gamma

# at strength 1; each kind comes to a sample with probability 1/2
CONTRAST = 0.5  # log of the factor
BRIGHTNESS = 0.5  # standard deviations of the sample
LOG_GAMMA = 0.5
BLUR_VOXELS = (0.5, 1.5)
ZOOM = (1.0, 2.0)
NOISE = 0.3  # standard deviations of the sample


@dataclass(frozen=True)
class StrongView:
    """What is drawn for a batch: (B,) each, neutral (0, or 1 for zoom) where a kind does not come to a sample."""

    log_contrast: Tensor
    brightness: Tensor
    log_gamma: Tensor
    blur_voxels: Tensor
    zoom: Tensor
    noise_sd: Tensor
    noise: Tensor
    """Of the image's shape, standard normal."""


def draw_strong_view(image: Tensor, strength: float, generator: torch.Generator) -> StrongView:
    """Numbers for each sample of a batch (B, channels, X, Y[, Z]).

    Args:
        image: gives shape, type and device.
        strength: factor of all ranges; 0 leaves images as they are.
        generator: of the image's device.
    """

    def uniform(low: float, high: float, neutral: float = 0.0) -> Tensor:
        comes, where = torch.rand(2, image.shape[0], generator=generator, device=image.device, dtype=image.dtype)
        return torch.where(comes < 0.5, neutral + strength * (low + (high - low) * where - neutral), neutral)

    return StrongView(
        log_contrast=uniform(-CONTRAST, CONTRAST),
        brightness=uniform(-BRIGHTNESS, BRIGHTNESS),
        log_gamma=uniform(-LOG_GAMMA, LOG_GAMMA),
        blur_voxels=uniform(*BLUR_VOXELS),
        zoom=uniform(*ZOOM, neutral=1.0),
        noise_sd=uniform(0.0, NOISE),
        noise=torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype),
    )


def apply_strong_view(image: Tensor, view: StrongView) -> Tensor:
    """A new tensor: low resolution, blur, contrast and brightness, gamma, noise, in this order.

    x <- (x - mean) exp(log_contrast) + mean + brightness sd        for each sample and channel
    x <- sign(x) |x|^exp(log_gamma)
    x <- x + noise_sd sd noise

    Args:
        image: (B, channels, X, Y[, Z]), normalised around 0.
        view: drawn for a batch of this shape.
    """
    if not len(image):
        return image.clone()
    zooms, blurs = view.zoom.tolist(), view.blur_voxels.tolist()
    smooth = [blur(coarsen(sample, z), b) for sample, z, b in zip(image, zooms, blurs, strict=True)]
    x = torch.stack(smooth)
    axes = tuple(range(2, image.ndim))
    mean, sd = x.mean(axes, keepdim=True), x.std(axes, correction=0, keepdim=True)
    column = (-1, *[1] * (image.ndim - 1))
    x = (x - mean) * view.log_contrast.exp().view(column) + mean + view.brightness.view(column) * sd
    x = apply_gamma(x, view.log_gamma)
    return x + view.noise_sd.view(column) * sd * view.noise


def coarsen(sample: Tensor, zoom: float) -> Tensor:
    """A sample (channels, X, Y[, Z]) as if scanned with voxels zoom times as long; itself at zoom 1."""
    if zoom == 1.0:
        return sample
    shape = sample.shape[1:]
    small = F.interpolate(sample[None], [max(1, round(n / zoom)) for n in shape], mode="nearest-exact")
    return F.interpolate(small, shape, mode="bilinear" if len(shape) == 2 else "trilinear", align_corners=False)[0]


def blur(sample: Tensor, sd_voxels: float) -> Tensor:
    """A sample (channels, X, Y[, Z]) convolved with a Gaussian, its borders continued; itself at deviation 0."""
    radius = int(3 * sd_voxels + 0.5)
    if radius == 0:
        return sample
    offsets = torch.arange(-radius, radius + 1, device=sample.device, dtype=sample.dtype)
    kernel = torch.exp(-0.5 * (offsets / sd_voxels) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in range(1, sample.ndim):
        lines = sample.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        sample = F.conv1d(padded, kernel).view(lines.shape).movedim(-1, axis)
    return sample
