"""Implicit shapes on a grid: values in voxels, positive inside, roughly the distance to the border."""

from __future__ import annotations

import numpy as np

CUBIC_SPLINE = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6


def smooth_field(shape: tuple[int, ...], cells: float, rng: np.random.Generator) -> np.ndarray:
    """A random field without edges: a cubic B-spline through random numbers, mean 0 and about unit variance.

    Args:
        shape: of the result.
        cells: number of spline cells along each axis; the fewer, the smoother.
        rng: source of the numbers.

    Returns:
        shape, float32.
    """
    bases = [_spline_basis(length, cells) for length in shape]
    field = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for basis in bases:  # each turn consumes the first axis and appends it at the end
        field = np.tensordot(field, basis, axes=(0, 1))
    return (field - field.mean()) / (field.std() + 1e-6)


def _spline_basis(length: int, cells: float) -> np.ndarray:
    """Weights of the control points at `length` places, (length, control points) float32."""
    places = np.linspace(0, max(cells, 1e-3), length, endpoint=False)
    whole = np.floor(places).astype(int)
    powers = (places - whole)[:, None] ** np.arange(4)
    basis = np.zeros((length, whole.max() + 4), np.float32)
    basis[np.arange(length)[:, None], whole[:, None] + np.arange(4)] = powers @ CUBIC_SPLINE
    return basis


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation (or reflection) without a preferred direction, (3, 3) float32."""
    rotation, triangle = np.linalg.qr(rng.standard_normal((3, 3)))
    return (rotation * np.sign(np.diag(triangle))).astype(np.float32)


def unit_vector(rng: np.random.Generator) -> np.ndarray:
    """A direction, (3,) float32."""
    vector = rng.standard_normal(3)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def ball(position: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Radius - |position - centre| on the grid; position is (3, X, Y, Z)."""
    return radius - np.sqrt(((position - centre[:, None, None, None]) ** 2).sum(0))


def ellipsoid(position: np.ndarray, centre: np.ndarray, radii: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """(1 - |R (position - centre) / radii|) times the mean radius."""
    offset = (position - centre[:, None, None, None]).reshape(3, -1)
    scaled = (rotation / radii[:, None]).astype(np.float32) @ offset
    distance = np.sqrt(np.einsum("ij,ij->j", scaled, scaled)).reshape(position.shape[1:])
    return (1 - distance) * float(np.exp(np.log(radii).mean()))


def tube(position: np.ndarray, path: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """A string of balls: path (N, 3), radii (N,)."""
    return np.max([ball(position, centre, radius) for centre, radius in zip(path, radii, strict=True)], 0)


def random_blob(position: np.ndarray, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """One to three ellipsoids that overlap; a fifth of them is hollowed out from one side."""
    result = ellipsoid(position, centre, radius * rng.uniform(0.6, 1.6, 3), random_rotation(rng))
    for _ in range(rng.integers(0, 3)):
        side = centre + unit_vector(rng) * radius * rng.uniform(0.5, 1.1)
        lobe = ellipsoid(position, side, radius * rng.uniform(0.35, 0.9, 3), random_rotation(rng))
        result = np.maximum(result, lobe)
    if rng.random() < 0.2:
        side = centre + unit_vector(rng) * radius * rng.uniform(0.7, 1.2)
        result = np.minimum(result, -ball(position, side, radius * rng.uniform(0.5, 0.9)))
    return result


def random_tube(
    position: np.ndarray, start: np.ndarray, length: float, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """A bent tube from start, tapering or widening towards its end."""
    first, second = unit_vector(rng), unit_vector(rng)
    along = np.linspace(0, 1, int(np.clip(length / (0.7 * radius), 4, 12)))[:, None]
    path = start + length * (along * first + 0.6 * along**2 * second)
    radii = radius * (1 + (rng.uniform(0.5, 1.3) - 1) * along[:, 0])
    return tube(position, path.astype(np.float32), radii)


def random_structure(position: np.ndarray, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A body, compact or drawn out, with none to four thin parts."""
    if rng.random() < 0.35:
        start = centre - unit_vector(rng) * radius
        result = random_tube(position, start, radius * rng.uniform(2, 5), radius * rng.uniform(0.5, 0.9), rng)
    else:
        result = random_blob(position, centre, radius, rng)
    for _ in range(rng.choice(5, p=(0.5, 0.2, 0.1, 0.1, 0.1))):
        length, thin = radius * rng.uniform(1.2, 3.5), max(1.0, radius * rng.uniform(0.15, 0.45))
        result = np.maximum(result, random_tube(position, centre, length, thin, rng))
    return result
