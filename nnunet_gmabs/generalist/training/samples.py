"""Training samples: crops of scenes with a prompt, a prior and the truth, cut as the generalist cuts them in use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_gmabs.generalist.crops import Window, box_in_crop, cut, interpolation_matrix, window_around
from nnunet_gmabs.generalist.embedded_network import CROP_SIZE, network_input
from nnunet_gmabs.generalist.training.priors import degraded_prior, dice, signed_distance
from nnunet_gmabs.generalist.training.scenes import Scene, random_scene

MAX_POINTS = 8
SAMPLES_A_SCENE = 32


@dataclass(frozen=True)
class Sample:
    """One crop: slices (3, S, S), prior and truth (S, S), all uint8; box and points in pixels of the crop.

    prior_dice: of the whole prior with the whole structure.
    """

    slices: np.ndarray
    prior: np.ndarray
    truth: np.ndarray
    box_xyxy: np.ndarray
    points_xy: np.ndarray
    point_labels: np.ndarray
    prior_dice: float


def endless_samples(rng: np.random.Generator) -> Iterator[list[Sample]]:
    """The samples of one scene after the other."""
    while True:
        samples = scene_samples(random_scene(rng), rng)
        if samples:
            yield samples


def scene_samples(scene: Scene, rng: np.random.Generator) -> list[Sample]:
    """Up to SAMPLES_A_SCENE samples: up to four structures, two specialists each, slices of all three views."""
    sizes = np.bincount(scene.labels.ravel(), minlength=256)
    usable = np.array([label for label in range(1, 256) if sizes[label] >= 40])
    if not len(usable):
        return []
    weights = np.sqrt(sizes[usable])  # large structures have more slices
    chosen = rng.choice(usable, min(4, len(usable)), replace=False, p=weights / weights.sum())
    samples: list[Sample] = []
    for label in chosen:
        truth, priors = _truth_and_priors(scene, int(label), rng)
        for number, prior in enumerate(priors):
            for _ in range(SAMPLES_A_SCENE // (len(chosen) * len(priors))):
                sample = _sample(scene, truth, prior, priors[1 - number], rng)
                samples += [sample] if sample else []
    return samples


def _truth_and_priors(scene: Scene, label: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """The truth as somebody would draw it, and two priors."""
    mask = scene.labels == label
    where = np.argwhere(mask)
    around = tuple(slice(max(0, low - 9), high + 10) for low, high in zip(where.min(0), where.max(0), strict=True))
    distance = signed_distance(mask[around], scene.spacing)
    distance += np.float32(_convention(float(distance.max()), rng))
    truth = np.zeros(mask.shape, np.float32)
    truth[around] = np.clip(distance + 0.5, 0, 1)
    priors = []
    for _ in range(2):
        prior = np.zeros(mask.shape, np.float32)
        prior[around] = degraded_prior(
            distance, scene.image[around], scene.spacing, 0.05 + 0.75 * rng.random() ** 1.3, rng
        )
        priors.append(prior)
    return truth, priors


def _convention(thickness: float, rng: np.random.Generator) -> float:
    """Voxels by which labels are drawn outside of the visible border.

    Whether a wall belongs to a structure, and how tightly it is drawn, is a convention of each data set: the image
    does not tell, only the prior does.
    """
    outside = rng.normal(0, 0.5)
    if rng.random() < 0.25:
        outside += rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)
    return max(outside, -0.4 * thickness)


def _sample(
    scene: Scene, truth: np.ndarray, prior: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> Sample | None:
    """A slice of one view; the prompt comes from the prior, from another specialist's, or from the truth."""
    axis = int(rng.integers(3))
    prompting = (prior, other, truth)[rng.choice(3, p=(0.7, 0.2, 0.1))]
    areas = np.moveaxis(prompting > 0.5, axis, 0).sum((1, 2))
    indices = np.flatnonzero(areas >= 3)
    if not len(indices):
        return None
    index = int(rng.choice(indices))
    length = len(areas)
    triple = np.stack([np.take(scene.image, np.clip(index + step, 0, length - 1), axis) for step in (-1, 0, 1)])
    planes = np.concatenate(
        [triple, 255 * np.stack([np.take(volume, index, axis) for volume in (prior, truth, prompting)])]
    )
    planes = _square(planes, np.delete(scene.spacing, axis))
    region = planes[5] > 127.5
    if not region.any():
        return None
    box, points, labels = _prompt(region, rng)
    window = window_around(box)
    crops = np.clip(np.rint(cut(planes[:5], window, CROP_SIZE)), 0, 255).astype(np.uint8)
    score = dice(prior > 0.5, truth > 0.5)
    return Sample(crops[:3], crops[3], crops[4], *_in_crop(window, box, points, labels), score)


def _square(planes: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The planes (C, H, W) with pixels as fine as the finer axis, linear."""
    finest = spacing.min()
    for axis in (0, 1):
        factor = spacing[axis] / finest
        if factor > 1:
            length = planes.shape[1 + axis]
            new = max(2, round(length * factor))
            matrix = interpolation_matrix((np.arange(new) + 0.5) * (length / new) - 0.5, length)
            planes = matrix @ planes if axis == 0 else planes @ matrix.T
    return planes


def _prompt(region: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box each side of which is off by up to a quarter, up to five points inside, one outside, some of them wrong."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    low, high = np.array([columns[0], rows[0]], float), np.array([columns[-1], rows[-1]], float)
    extent = high - low + 1
    inward = 0.25 if rng.random() < 0.5 else 0.0
    outward = 0.25 if inward else 0.12
    low -= rng.uniform(-inward, outward, 2) * extent
    high += rng.uniform(-inward, outward, 2) * extent
    box = np.concatenate([np.minimum(low, high), np.maximum(low, high)])
    points, labels = [], []
    for label, places, number in (
        (1, np.argwhere(region), rng.choice([0, 1, 3, 5], p=(0.15, 0.15, 0.1, 0.6))),
        (0, np.argwhere(~region), rng.choice([0, 1, 2], p=(0.3, 0.6, 0.1))),
    ):
        if len(places):
            points += list(places[rng.integers(len(places), size=number), ::-1])
            labels += [label] * int(number)
    kinds = np.array(labels, int)
    wrong = rng.random(len(kinds)) < 0.03
    return box, np.array(points, float).reshape(-1, 2), np.where(wrong, 1 - kinds, kinds)


def _in_crop(
    window: Window, box: np.ndarray, points: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Box and points in pixels of the crop, points padded to MAX_POINTS with label -1."""
    edges = box_in_crop(window, box, CROP_SIZE)
    padded, kinds = np.zeros((MAX_POINTS, 2), np.float32), np.full(MAX_POINTS, -1, np.int8)
    padded[: len(points)] = window.to_crop(points, CROP_SIZE)
    kinds[: len(labels)] = labels
    return edges, padded, kinds


@dataclass(frozen=True)
class Batch:
    """What the network sees, (B, 8, S, S), and should answer, truth (B, S, S) float in [0, 1]."""

    x: Tensor
    truth: Tensor

    @property
    def prior(self) -> Tensor:
        """(B, S, S); 0 where there is none."""
        return self.x[:, 6]


class SamplePool:
    """Samples kept in memory, drawn several times each, replaced one by one."""

    def __init__(self, capacity: int) -> None:
        size = CROP_SIZE
        self.slices = np.zeros((capacity, 3, size, size), np.uint8)
        self.prior = np.zeros((capacity, size, size), np.uint8)
        self.truth = np.zeros((capacity, size, size), np.uint8)
        self.box_xyxy = np.zeros((capacity, 4), np.float32)
        self.points_xy = np.zeros((capacity, MAX_POINTS, 2), np.float32)
        self.point_labels = np.full((capacity, MAX_POINTS), -1, np.int8)
        self.prior_dice = np.zeros(capacity, np.float32)
        self.filled = 0

    def add(self, samples: list[Sample], rng: np.random.Generator) -> None:
        """Append while there is room, then replace samples at random."""
        for sample in samples:
            if self.filled < len(self.slices):
                place, self.filled = self.filled, self.filled + 1
            else:
                place = int(rng.integers(self.filled))
            for name, value in vars(sample).items():
                getattr(self, name)[place] = value

    def batch(self, chosen: np.ndarray, prior_flag: np.ndarray) -> Batch:
        """Some samples as they are, with what is known of their priors (embedded_network.network_input)."""
        slices, prior, truth, boxes, points = (
            torch.from_numpy(array[chosen]).float()
            for array in (self.slices, self.prior, self.truth, self.box_xyxy, self.points_xy)
        )
        labels = torch.from_numpy(self.point_labels[chosen])
        flag = torch.from_numpy(np.asarray(prior_flag, np.float32))
        return Batch(network_input(slices, prior / 255, flag, boxes, points, labels), truth / 255)

    def random_batch(self, size: int, without_prior: float, rng: np.random.Generator) -> Batch:
        """Samples drawn at random, mirrored, turned, inverted, some without prior or neighbours.

        What is said of the priors that are there: nothing for half of them, else their Dice, with an error.
        """
        chosen = rng.integers(self.filled, size=size)
        said = np.clip(self.prior_dice[chosen] + rng.normal(0, 0.05, size), 0, 1)
        flag = np.where(rng.random(size) < 0.5, 1 + said, 1) * (rng.random(size) >= without_prior)
        batch = self.batch(chosen, flag)
        x, truth = batch.x.clone(), batch.truth
        x[:, :3] *= torch.from_numpy(rng.choice([-1.0, 1.0], (size, 1, 1, 1)).astype(np.float32))
        swapped = torch.from_numpy(rng.random(size) < 0.5)
        x[swapped, :3] = x[swapped, :3].flip(1)
        alone = torch.from_numpy(rng.random(size) < 0.1)
        x[alone, :3] = x[alone, 1:2].expand(-1, 3, -1, -1)
        x[torch.from_numpy(rng.random(size) < 0.02), :3] = 0  # nothing to be seen: the prior is all there is
        both = torch.cat([x, truth[:, None]], 1)
        for axis in (2, 3):
            mirrored = torch.from_numpy(rng.random(size) < 0.5)
            both[mirrored] = both[mirrored].flip(axis)
        turned = torch.from_numpy(rng.random(size) < 0.5)
        both[turned] = both[turned].transpose(2, 3)
        return Batch(both[:, :8], both[:, 8])
