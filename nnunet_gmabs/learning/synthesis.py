"""Synthetic samples: objects of an exemplar, transformed, on the image of another scan (CMEMS 1).

Draw, then apply: every draw takes an explicit generator. Arrays are in nnU-Net's axis order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from nnunet_gmabs.learning.objects import CutOut

CONTROL_POINTS = 4  # of the elastic displacement, along each axis
FULL = 0.999  # alpha that counts as 1 after interpolation
MAX_GAIN = 2.0  # of intensities matched to their place, either way


@dataclass(frozen=True)
class ObjectTransform:
    """What is drawn for one object.

    Attributes:
        matrix: (3, 3), from an offset to the middle of the new object to that in the old one, both in length units.
        displacement: (3, 4, 4, 4), added to the latter at control points over the new object's box, in length units.
        gain: (channels,), contrast around the object's mean.
        bias: (channels,), added, in units of the image.
    """

    matrix: np.ndarray
    displacement: np.ndarray
    gain: np.ndarray
    bias: np.ndarray


def draw_transform(
    rng: np.random.Generator,
    size: Sequence[float],
    channels: int,
    rotation_degrees: float,
    scale: float,
    elastic: float,
    intensity: float,
    in_plane: bool = False,
) -> ObjectTransform:
    """Rotation, scaling, elastic displacement and intensity of one object.

    Args:
        rng: the only source of randomness.
        size: of the object's box, in length units.
        channels: of the image.
        rotation_degrees: each angle is uniform within plus or minus this.
        scale: log size is uniform within plus or minus log(scale), the same along all axes.
        elastic: standard deviation of the displacement as a share of the box's shortest side.
        intensity: log gain and bias are uniform within plus or minus this.
        in_plane: only across axis 0 (2d networks, and thick slices).
    """
    angles = np.radians(rng.uniform(-rotation_degrees, rotation_degrees, 3))
    displacement = rng.normal(0.0, 1.0, (3, *[CONTROL_POINTS] * 3))
    log_size = rng.uniform(-1, 1) * np.log(scale)
    sides, scales = np.asarray(size, float), np.full(3, np.exp(-log_size))
    if in_plane:
        angles[1:], displacement[0], scales[0], sides = 0.0, 0.0, 1.0, sides[1:]
    gain, bias = rng.uniform(-intensity, intensity, (2, channels))
    matrix = rotation(angles) @ np.diag(scales)
    return ObjectTransform(matrix, displacement * elastic * sides.min(), np.exp(gain), bias)


def rotation(angles: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3, 3): turns by three angles in radians, across axis 0, then 1, then 2."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (a for a in range(3) if a != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def transform_object(cut: CutOut, drawn: ObjectTransform, spacing: Sequence[float], unknown: int) -> CutOut:
    """The object turned, scaled and bent, in a box of its own; labels by the nearest neighbour, all else linearly.

    Its intensities stay (vary_intensity).

    Args:
        cut: the object as the exemplar shows it.
        drawn: see draw_transform.
        spacing: of the three axes.
        unknown: label of what comes from outside the box.

    Returns:
        A box trimmed to where alpha is not 0; it may be empty when a tiny object falls between voxels.
    """
    spacing_mm, shape = np.asarray(spacing, float), np.array(cut.alpha.shape)
    corners = np.stack(np.meshgrid(*((-n / 2, n / 2) for n in shape * spacing_mm), indexing="ij")).reshape(3, -1)
    reach = np.abs(np.linalg.inv(drawn.matrix) @ corners).max(1) + np.abs(drawn.displacement).max()
    # as many voxels more on either side as are needed: an unchanged object keeps its own grid
    sides = shape + 2 * np.maximum(np.ceil(reach / spacing_mm - shape / 2 - 1e-6), 0).astype(int)
    column = (3, 1, 1, 1)
    index = np.indices(tuple(sides))
    offset = (index - (sides.reshape(column) - 1) / 2) * spacing_mm.reshape(column)
    at_control = index / np.maximum(sides - 1, 1).reshape(column) * (CONTROL_POINTS - 1)
    source = np.tensordot(drawn.matrix, offset, 1)
    if drawn.displacement.any():
        source += np.stack([ndimage.map_coordinates(d, at_control, order=1) for d in drawn.displacement])
    source = source / spacing_mm.reshape(column) + (shape.reshape(column) - 1) / 2
    # grid-constant: a voxel reaches half its size beyond its middle, at the box's border, too
    alpha = ndimage.map_coordinates(cut.alpha, source, order=1, mode="grid-constant")
    box = _where(alpha > 0)
    source = source[(slice(None), *box)]
    image = np.stack([ndimage.map_coordinates(channel, source, order=1, mode="nearest") for channel in cut.image])
    labels = ndimage.map_coordinates(cut.labels, source, order=0, mode="grid-constant", cval=unknown)
    return replace(cut, image=image, labels=labels, alpha=alpha[box])


def _where(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of True voxels; an empty one when there are none."""
    found = ndimage.find_objects(mask.astype(np.int8))
    return found[0] if found else (slice(0, 0),) * mask.ndim


def draw_start(
    rng: np.random.Generator, cut: CutOut, scan_shape: Sequence[int], jitter: float, anywhere: bool
) -> tuple[int, ...]:
    """Index of the first voxel of the object's box in a scan; negative where the object is longer than the scan.

    Args:
        rng: the only source of randomness.
        cut: its centre says where the exemplar has the object.
        scan_shape: (X, Y, Z).
        jitter: standard deviation of the shift from there, as a share of the object's sides.
        anywhere: uniform over all places instead.
    """
    sides, shape = np.array(cut.alpha.shape), np.array(scan_shape)
    shift, place = rng.normal(0.0, 1.0, 3), rng.uniform(0.0, 1.0, 3)
    room = shape - sides
    if anywhere:
        start = np.floor(place * (room + 1))
    else:
        start = np.round(np.array(cut.centre) * (shape - 1) - (sides - 1) / 2 + shift * jitter * sides)
    fitted = np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), np.floor(room / 2))
    return tuple(int(s) for s in fitted)


def match_intensity(cut: CutOut, place: np.ndarray, same_organ: bool) -> CutOut:
    """The object with the intensities of its place: mean and deviation of a region agree.

    x <- (x - mean_object) g + mean_place,  g = sd_place / sd_object within [1/2, 2], for each channel

    Args:
        cut: the object, already transformed.
        place: (channels, X, Y, Z), what is there now. With fewer than 8 voxels in the region nothing is changed.
        same_organ: the place shows the same organ, so the region is all that is pasted; otherwise it is the band in
            which both images mix.
    """
    region = (cut.alpha > 0) & (same_organ | (cut.alpha < FULL))
    if region.sum() < 8:
        return cut
    column = (-1, 1, 1, 1)
    own, there = cut.image[:, region], place[:, region]
    gain = np.clip(there.std(1) / np.maximum(own.std(1), 1e-6), 1 / MAX_GAIN, MAX_GAIN).reshape(column)
    image = (cut.image - own.mean(1).reshape(column)) * gain + there.mean(1).reshape(column)
    return replace(cut, image=image.astype(np.float32))


def vary_intensity(cut: CutOut, drawn: ObjectTransform) -> CutOut:
    """The object with other contrast and brightness: x <- (x - mean) gain + mean + bias, for each channel.

    Comes after match_intensity, which would undo it.

    Args:
        cut: the object, not empty.
        drawn: see draw_transform.
    """
    mean = cut.image.mean((1, 2, 3), keepdims=True)
    gain, bias = drawn.gain.reshape(-1, 1, 1, 1), drawn.bias.reshape(-1, 1, 1, 1)
    return replace(cut, image=((cut.image - mean) * gain + mean + bias).astype(np.float32))


def paste(image: np.ndarray, labels: np.ndarray, cut: CutOut, unknown: int) -> tuple[np.ndarray, np.ndarray]:
    """New image and labels of a place with the object in it; what somebody has drawn there stays, image and label.

    image <- alpha object + (1 - alpha) image,  label <- object's label where alpha = 1

    Args:
        image: (channels, X, Y, Z) of the place.
        labels: (X, Y, Z) of the place; voxels with another label than unknown are not touched.
        cut: of the same shape.
        unknown: label of voxels that nobody has drawn.
    """
    free = labels == unknown
    alpha = np.where(free, cut.alpha, 0.0)
    mixed = alpha * cut.image + (1 - alpha) * image
    return mixed.astype(np.float32), np.where(free & (cut.alpha >= FULL), cut.labels, labels).astype(labels.dtype)
