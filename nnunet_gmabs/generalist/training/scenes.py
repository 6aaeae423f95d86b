"""A scene: a small scan with several touching structures, drawn in code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_gmabs.generalist.training.shapes import (
    ball,
    random_blob,
    random_structure,
    smooth_field,
    unit_vector,
)


@dataclass(frozen=True)
class Scene:
    """image (X, Y, Z) uint8; labels (X, Y, Z) uint8, 0 where no structure is; spacing of the axes, the finest 1."""

    image: np.ndarray
    labels: np.ndarray
    spacing: np.ndarray


def random_scene(rng: np.random.Generator) -> Scene:
    """Tissues without structure, two to five plain structures, and one or two with parts, in one random contrast."""
    spacing = np.ones(3)
    shape = rng.integers(28, 65, 3)
    if rng.random() < 0.3:  # thick slices
        axis = rng.integers(3)
        spacing[axis] = rng.uniform(1.5, 4)
        shape[axis] = max(10, int(shape[axis] / spacing[axis]))
    position = _warped_grid(tuple(shape), spacing, rng)
    tissues, labels = _paint(position, shape * spacing, rng)
    image = _render(tissues, labels, spacing, rng)
    return Scene(to_bytes(image), labels, spacing)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """The 0.5 to 99.5 percentile of the scan as 0 to 255."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) * (255 / max(float(high - low), 1e-6)), 0, 255).astype(np.uint8)


def _warped_grid(shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coordinates of the voxels from the middle of the scan, in voxels of the finest axis, bent at two scales."""
    lines = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    position = np.stack(np.meshgrid(*lines, indexing="ij")).astype(np.float32)
    extent = float(min(n * step for n, step in zip(shape, spacing, strict=True)))
    coarse, fine = rng.uniform(0, 0.06) * extent, rng.uniform(0, 1.0)
    for axis in range(3):
        position[axis] += coarse * smooth_field(shape, 3, rng)
        position[axis] += fine * smooth_field(shape, rng.uniform(5, 9), rng)
    return position


def _paint(position: np.ndarray, extent: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which tissue and which structure each voxel is, two uint8 arrays; later structures cover earlier ones."""
    shape = position.shape[1:]
    cells = rng.uniform(1, 6)
    fields = [smooth_field(shape, cells, rng) for _ in range(rng.integers(2, 6))]
    tissues = np.argmax(fields, 0).astype(np.uint8)  # 0..4
    labels = np.zeros(shape, np.uint8)
    largest = 0.3 * float(extent.min())
    middle = (rng.uniform(-0.15, 0.15, 3) * extent).astype(np.float32)
    reach = float(np.exp(rng.uniform(np.log(4), np.log(max(largest, 5.0)))))
    for label in range(1, rng.integers(3, 7)):
        radius = float(np.exp(rng.uniform(np.log(3), np.log(max(largest, 4.0)))))
        centre = middle + unit_vector(rng) * rng.uniform(0.6, 1.5) * (radius + reach)
        inside = random_blob(position, centre, radius, rng) > 0
        tissues[inside], labels[inside] = 10 + label, label
    for number in range(rng.integers(1, 3)):
        centre = middle if number == 0 else middle + unit_vector(rng) * 1.5 * reach
        _paint_structure(tissues, labels, position, centre, reach, 10 + 2 * number, rng)
        reach *= rng.uniform(0.4, 1.0)
    if rng.random() < 0.5:  # what is close to a structure often has its grey
        tissues[labels == rng.integers(1, 4)] = 20
    if rng.random() < 0.25:  # air around the body
        air = ball(position, middle, 0.75 * float(extent.mean())) < 0
        tissues[air & (labels == 0)] = 9
    return tissues, labels


def _paint_structure(
    tissues: np.ndarray,
    labels: np.ndarray,
    position: np.ndarray,
    centre: np.ndarray,
    radius: float,
    label: int,
    rng: np.random.Generator,
) -> None:
    """One structure with parts; often in a wall, often cut in two where no border is seen."""
    inside = random_structure(position, centre, radius, rng)
    if rng.random() < 0.3:
        wall = (inside > -rng.uniform(0.8, 2.0)) & (inside <= 0)
        tissues[wall] = 30
    labels[inside > 0], tissues[inside > 0] = label, 10 + label
    if rng.random() < 0.6:
        cut = centre + unit_vector(rng) * radius * rng.uniform(0, 1)
        if rng.random() < 0.5:
            other = ball(position, cut, radius * rng.uniform(0.9, 1.8)) < 0
        else:
            other = np.tensordot(unit_vector(rng), position - cut[:, None, None, None], axes=(0, 0)) > 0
        labels[(inside > 0) & other] = label + 1
        if rng.random() < 0.4:  # the border is seen after all
            tissues[(inside > 0) & other] = 11 + label
    if rng.random() < 0.3:  # something else inside it
        spots = smooth_field(labels.shape, rng.uniform(4, 12), rng) > rng.uniform(1.0, 1.8)
        tissues[(inside > 1) & spots] = 31


def _render(tissues: np.ndarray, labels: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey values: contrast, texture, partial volume, bias field and noise."""
    shape = tissues.shape
    values = _contrast(rng)
    image = values[tissues]
    if rng.random() < 0.5:
        amplitude = (rng.uniform(0, 0.25) * rng.random(32) * (rng.random(32) < 0.6)).astype(np.float32)
        image += amplitude[tissues] * _noise(shape, rng.uniform(0.6, 3.0) / spacing, rng)
    image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.1) / spacing**0.5)
    if rng.random() < 0.6:
        image *= np.exp(rng.uniform(0, 0.35) * smooth_field(shape, rng.uniform(1, 2.5), rng))
    sd = 0.25 / float(np.exp(rng.uniform(np.log(1.2), np.log(15))))
    grain = rng.uniform(0.4, 1.2) if rng.random() < 0.6 else 0.0
    noise = sd * _noise(shape, grain / spacing, rng)
    if rng.random() < 0.3:  # magnitude images: noise is not negative
        image = np.hypot(image + noise, sd * _noise(shape, grain / spacing, rng))
    else:
        image = image + noise
    return image


def _contrast(rng: np.random.Generator) -> np.ndarray:
    """A grey value in [0, 1] for each tissue, (32,) float32; structures mostly differ from what is around them."""
    values = rng.random(32).astype(np.float32)
    values[9] = 0  # air
    if rng.random() < 0.7:  # few greys, so that structures share theirs with others
        palette = rng.random(rng.integers(2, 5)).astype(np.float32)
        values[:9] = rng.choice(palette, 9)
        values[10:] = rng.choice(np.append(palette, rng.random(4).astype(np.float32)), 22)
    for tissue in range(10, 30):
        if rng.random() < 0.6:
            candidates = rng.random(5).astype(np.float32)
            nearest = np.abs(candidates[:, None] - values[:5]).min(1)
            values[tissue] = candidates[nearest.argmax()]
    return values


def _noise(shape: tuple[int, ...], sd_voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise, smoothed, with unit variance again."""
    noise = rng.standard_normal(shape, np.float32)
    if np.max(sd_voxels) > 0.3:
        noise = ndimage.gaussian_filter(noise, sd_voxels, truncate=3)
        noise /= noise.std() + 1e-6
    return noise
