"""A structure as a specialist with few labels would predict it: systematic errors, smooth and sure."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunet_gmabs.generalist.training.shapes import smooth_field


def signed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance to the border, positive inside, in units of spacing; mask must have both kinds of voxels."""
    inside = ndimage.distance_transform_edt(mask, spacing)
    outside = ndimage.distance_transform_edt(~mask, spacing)
    return (np.where(mask, inside - 0.5, 0.5 - outside)).astype(np.float32)


def degraded_prior(
    distance: np.ndarray,
    image: np.ndarray,
    spacing: np.ndarray,
    severity: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Probabilities that are wrong in the ways networks are.

    The border moves by a smooth field; the whole is too large, too small or displaced; lobes are
    missing; it leaks into what touches it, everywhere or where the grey value is alike; islands
    appear; and the probabilities are soft, or sure and wrong.

    Args:
        distance: (X, Y, Z) signed distance of the truth, as signed_distance gives it.
        image: (X, Y, Z) uint8.
        spacing: (3,), the unit of distance.
        severity: in [0, 1]; at 0 only the softness remains.
        rng: source of all draws.

    Returns:
        (X, Y, Z) float32 in [0, 1].
    """
    shape = distance.shape
    thickness = float(distance.max())
    size = 1.0 + 0.6 * thickness
    # on the average over its border a network is seldom far off: what it gets wrong is here and there
    level = distance + severity * size * rng.normal(0, 0.5 if rng.random() < 0.2 else 0.12)
    level += severity * size * rng.uniform(0, 0.9) * smooth_field(shape, rng.uniform(1.5, 4), rng)
    level += severity * min(size, 2.5) * rng.uniform(0, 0.8) * smooth_field(shape, rng.uniform(5, 10), rng)
    steps = np.rint(severity * rng.normal(0, 0.35, 3) * size / spacing).astype(int)
    level = ndimage.shift(level, steps, order=0, mode="nearest") if steps.any() else level
    border = np.argwhere(np.abs(distance) < 1.0)
    for _ in range(rng.poisson(1.5 * severity)):  # missing lobes
        level = np.minimum(level, -_bite(border, shape, spacing, thickness * rng.uniform(0.5, 2.0), rng))
    for _ in range(rng.poisson(1.5 * severity)):  # leaks
        leak = _bite(border, shape, spacing, thickness * rng.uniform(0.5, 2.0), rng)
        if rng.random() < 0.6:
            leak = np.minimum(leak, _alike(image, distance > 0, rng))
        level = np.maximum(level, leak)
    if rng.random() < 0.4 * severity:  # an island
        places = np.argwhere((distance < -2) & (distance > -3 * thickness - 4))
        if len(places):
            level = np.maximum(level, _bite(places, shape, spacing, thickness * rng.uniform(0.3, 0.8), rng))
    if rng.random() < 0.5:
        level = ndimage.gaussian_filter(level, rng.uniform(0.4, 1.5) / spacing)
    softness = float(np.exp(rng.uniform(np.log(0.25), np.log(2.5))))
    return (1 / (1 + np.exp(-np.clip(level / softness, -20, 20)))).astype(np.float32)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks; 1 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def _bite(
    places: np.ndarray, shape: tuple[int, ...], spacing: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Radius - distance to one of the places, bent a little; negative everywhere without places."""
    if not len(places):
        return np.full(shape, -20.0, np.float32)
    centre = places[rng.integers(len(places))]
    squares = [((np.arange(n) - c) * step) ** 2 for n, c, step in zip(shape, centre, spacing, strict=True)]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]).astype(np.float32)
    return radius - distance + 0.2 * radius * smooth_field(shape, 4, rng)


def _alike(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive where the smoothed grey value is like the structure's."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), rng.uniform(0.5, 1.5))
    values = smooth[mask]
    tolerance = rng.uniform(0.8, 2.0) * float(values.std()) + 8
    return (1 - np.abs(smooth - float(values.mean())) / tolerance) * 3
