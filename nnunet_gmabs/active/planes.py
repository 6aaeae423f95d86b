"""Which planes of a chosen scan to ask for: through what is predicted, never one that is drawn already.

The axes take turns, and a plane that lies wholly in others is not asked for: an image of one slice has one plane. Where
nothing is predicted, or every plane through it is drawn, planes go through the body, and then through the scan as a
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnunet_gmabs.annotation.planes import Plane, whole_plane

MIDDLE, INFORMATION, RANDOM = "middle", "information", "random"
PLANE_CHOICES = (MIDDLE, INFORMATION, RANDOM)


@dataclass(frozen=True)
class ChosenPlane:
    """One plane, and why.

    Attributes:
        axis: 0, 1 or 2.
        index_orig: place on it, on the scan's own grid.
        score: region voxels that it crosses, for "information" the information on it; None for a random plane.
        reason: for people.
    """

    axis: int
    index_orig: int
    score: float | None
    reason: str

    @property
    def plane(self) -> Plane:
        """The pair (axis, index_orig)."""
        return self.axis, self.index_orig


# A way to pick: the axis, region voxels on each of its planes, its drawn planes -> index, score and words.
Pick = Callable[[int, np.ndarray, list[int]], tuple[int, float | None, str]]


def choose_planes(
    labels_pred: np.ndarray,
    number: int,
    rng: np.random.Generator,
    drawn: Iterable[Plane] = (),
    how: str = MIDDLE,
    information: np.ndarray | None = None,
    body: np.ndarray | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> list[ChosenPlane]:
    """Distinct planes of one scan that are worth drawing.

    "middle": the middle of the region, or of its largest stretch between drawn planes. Paper: the middle of the true
    region, an oracle's choice. "information": the highest sum of information on the plane, counted less near drawn
    planes, which say much about their neighbours. "random": uniform among the planes that cross the region.

    Three planes are one on each axis. Other numbers begin with the axis of the largest spacing, whose planes are
    sharpest. An image of one slice (2D data) is one plane, whatever the number.

    Args:
        labels_pred: (X, Y, Z) integers; what is not 0 is the predicted region.
        number: how many.
        rng: used by "random" only.
        drawn: planes that are drawn already.
        how: "middle", "information" or "random".
        information: (X, Y, Z) >= 0, such as entropy; "information" needs it.
        body: (X, Y, Z) bool, to go through where no plane through the predicted region is left.
        spacing_mm: of axes 0, 1, 2.

    Returns:
        The planes in the order chosen; fewer than asked for only where those drawn and chosen hold the whole scan.

    Raises:
        ValueError: if how is unknown, or information is missing or of another shape.
    """
    if how not in PLANE_CHOICES:
        raise ValueError(f"how={how!r}: must be one of {', '.join(PLANE_CHOICES)}")
    if how == INFORMATION and (information is None or information.shape != labels_pred.shape):
        raise ValueError(f"how={how!r} needs information of shape {labels_pred.shape}")
    if number < 1:
        raise ValueError(f"{number} planes asked for; must be at least 1")
    regions = [("the predicted region", labels_pred > 0), ("the body", body), ("the scan", None)]
    ways: dict[str, Pick] = {
        MIDDLE: _middle,
        INFORMATION: partial(_informative, information),
        RANDOM: partial(_random, rng),
    }
    taken, chosen = set(drawn), list[ChosenPlane]()
    axes = sorted(range(3), key=lambda axis: (-spacing_mm[axis], axis)) if number % 3 else [0, 1, 2]
    if (whole := whole_plane(labels_pred.shape)) is not None:
        axes = [whole[0]]
    for name, region in regions:
        if region is None and name != "the scan":
            continue
        held = _held(labels_pred.shape, region)
        chosen += _in_turn(name, held, axes, number - len(chosen), taken, ways[how])
        if len(chosen) == number:
            break
    return chosen


def body_mask(image: np.ndarray) -> np.ndarray:
    """The brighter part of an image after Otsu's threshold on 256 bins: roughly the body, where air is dark.

    Args:
        image: (X, Y, Z).

    Returns:
        (X, Y, Z) bool; all True for an image of one intensity.
    """
    counts, edges = np.histogram(image, bins=256)
    if image.min() == image.max():
        return np.ones(image.shape, dtype=bool)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(below * above * gap**2))
    return image > edges[best + 1]


def _in_turn(
    name: str, held: list[np.ndarray], axes: list[int], number: int, taken: set[Plane], pick: Pick
) -> list[ChosenPlane]:
    """Planes on the axes in turn, passing over axes on which none is left; taken grows."""
    chosen: list[ChosenPlane] = []
    progress = True
    while progress and len(chosen) < number:
        progress = False
        for axis in axes:
            blocked = sorted(index for a, index in taken if a == axis)
            if len(chosen) < number and not _hold_all(held, taken) and np.delete(held[axis], blocked).any():
                index, score, words = pick(axis, held[axis], blocked)
                chosen.append(ChosenPlane(axis, index, score, f"{words} {name} on axis {axis}"))
                taken.add((axis, index))
                progress = True
    return chosen


def _hold_all(held: list[np.ndarray], taken: set[Plane]) -> bool:
    """Whether planes hold the whole scan: they are all planes of one axis."""
    return any(sum(a == axis for a, _ in taken) == len(held[axis]) for axis in range(3))


def _held(shape: tuple[int, ...], region: np.ndarray | None) -> list[np.ndarray]:
    """For each axis the number of region voxels on each of its planes."""
    if region is None:
        return [np.full(shape[axis], np.prod(shape) // shape[axis]) for axis in range(3)]
    return [region.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]


def _free(held: np.ndarray, blocked: list[int]) -> np.ndarray:
    """Sorted places of the planes that cross the region and are not drawn."""
    return np.setdiff1d(np.flatnonzero(held), blocked)


def _middle(axis: int, held: np.ndarray, blocked: list[int]) -> tuple[int, float, str]:
    """The middle of the longest stretch of the region that holds no drawn plane."""
    crossing = np.flatnonzero(held)
    first, last = int(crossing[0]), int(crossing[-1])
    walls = [first - 1, *(b for b in blocked if first <= b <= last), last + 1]
    stretches = [(a + 1, b - 1) for a, b in zip(walls, walls[1:], strict=False) if _free(held[a + 1 : b], []).size]
    low, high = max(stretches, key=lambda s: (s[1] - s[0], -s[0]))
    inside = low + np.flatnonzero(held[low : high + 1])
    index = int(inside[np.abs(inside - (low + high) // 2).argmin()])
    words = "middle of" if (low, high) == (first, last) else f"middle of the undrawn planes {low} to {high} of"
    return index, float(held[index]), words


def _informative(
    information: np.ndarray | None, axis: int, held: np.ndarray, blocked: list[int]
) -> tuple[int, float, str]:
    """The plane with the most information, counted in full from a quarter of the region away from drawn planes."""
    assert information is not None
    sums = information.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
    crossing = np.flatnonzero(held)
    reach = max(1.0, (crossing[-1] - crossing[0] + 1) / 4)
    if blocked:
        distance = np.abs(np.arange(len(held))[:, None] - np.array(blocked)[None]).min(axis=1)
        sums = sums * np.minimum(distance / reach, 1.0)
    free = _free(held, blocked)
    index = int(free[sums[free].argmax()])
    return index, float(sums[index]), "most expected information in"


def _random(rng: np.random.Generator, axis: int, held: np.ndarray, blocked: list[int]) -> tuple[int, None, str]:
    """Any plane that crosses the region."""
    return int(rng.choice(_free(held, blocked))), None, "random plane through"
