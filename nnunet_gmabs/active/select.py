"""Strategies: which scans to ask for, composed of a score, a spread and a budget.

- random: scans and planes drawn at random; the plain control
- foreground-random: scans drawn at random, planes at random through what is predicted; the control to beat, and the
  default, since nothing here beat it (docs/older.md)
- uncertainty: the highest share of uncertain voxels
- uncertainty-diverse: of the most uncertain tenth, one of each cluster of intensity histograms (paper)
- disagreement: the scans that two models see most differently
- cold-start: typical scans of every kind of image; needs no model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_gmabs.active.diversity import (
    image_descriptor,
    intensity_histogram,
    most_uncertain_of_each_cluster,
    standardise,
    typical_of_each_cluster,
)
from nnunet_gmabs.active.planes import MIDDLE, RANDOM

SHORTLIST_SHARE = 0.1  # paper: the most uncertain tenth; ours: of the unlabelled scans, and at least those asked for
MINUTES_PER_PLANE = 2.0  # a guess for one organ on one slice; times that experts took replace it


@dataclass(frozen=True)
class Strategy:
    """How scans and planes are chosen.

    Attributes:
        score: what each scan is scored by, None where every scan counts alike.
        spread: "draw" at random, "top" scores, best of "clusters", or "typical" of those without a labelled scan.
        planes: how planes are chosen, see active.planes.
        predicted: whether planes go through what a model predicts.
    """

    score: Literal["uncertainty", "disagreement"] | None
    spread: Literal["draw", "top", "clusters", "typical"]
    planes: str = MIDDLE
    predicted: bool = True

    @property
    def needs_model(self) -> bool:
        """Whether there is nothing to choose by without a prediction."""
        return self.score is not None or self.predicted

    @property
    def anywhere(self) -> bool:
        """Whether planes go anywhere in the scan: the plain control, also where a model is at hand."""
        return self.planes == RANDOM and not self.predicted

    @property
    def features(self) -> Literal["histogram", "descriptor"] | None:
        """Which vectors of the images the spread needs."""
        return {"clusters": "histogram", "typical": "descriptor"}.get(self.spread)  # type: ignore[return-value]

    @property
    def looks(self) -> bool:
        """Whether all scans are looked at before any is chosen."""
        return self.score is not None or self.features is not None

    def describe(self, image: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """(D,) what the spread compares scans by: histograms of all channels, or a descriptor.

        Args:
            image: (channels, X, Y, Z).
            spacing_mm: of axes 0, 1, 2.
        """
        if self.features == "histogram":
            return np.concatenate([intensity_histogram(channel) for channel in image])
        return image_descriptor(image, spacing_mm)


STRATEGIES = {
    "random": Strategy(None, "draw", RANDOM, predicted=False),
    "foreground-random": Strategy(None, "draw", RANDOM),
    "uncertainty": Strategy("uncertainty", "top"),
    "uncertainty-diverse": Strategy("uncertainty", "clusters"),
    "disagreement": Strategy("disagreement", "top"),
    "cold-start": Strategy(None, "typical", predicted=False),
}


@dataclass(frozen=True)
class ChosenScan:
    """One scan, and why.

    Attributes:
        identifier: nnU-Net's name of the scan.
        score: what the strategy counted; for "typical" the share of scans it stands for; None for a draw.
        reason: for people.
    """

    identifier: str
    score: float | None
    reason: str


def select_scans(
    strategy: Strategy,
    identifiers: Sequence[str],
    number: int,
    rng: np.random.Generator,
    scores: Sequence[float] | None = None,
    features: np.ndarray | None = None,
    known_features: np.ndarray | None = None,
) -> list[ChosenScan]:
    """Exactly as many scans as asked for; the same for the same seed, in whatever order the scans are given.

    Args:
        strategy: one of STRATEGIES.
        identifiers: N scans to choose from, none of them labelled.
        number: 1..N.
        rng: the only source of randomness.
        scores: of the N scans, where strategy.score is not None.
        features: (N, D) histograms or descriptors, where strategy.features says so.
        known_features: (M, D) those of labelled scans; "typical" leaves their clusters out.

    Returns:
        The scans, the one most worth drawing first.

    Raises:
        ValueError: if number is outside 1..N, or scores or features are missing.
    """
    if not 1 <= number <= len(identifiers):
        raise ValueError(f"{number} scans asked for, but there are {len(identifiers)} to choose from")
    for name, needed, given in (("scores", strategy.score, scores), ("features", strategy.features, features)):
        if needed and (given is None or len(given) != len(identifiers)):
            raise ValueError(f"this strategy needs {name} ({needed}) of all {len(identifiers)} scans")
    order = sorted(range(len(identifiers)), key=lambda i: identifiers[i])
    names = [identifiers[i] for i in order]
    values = [float(scores[i]) for i in order] if strategy.score and scores is not None else []
    vectors = features[order] if strategy.features and features is not None else np.zeros((len(names), 0))
    if strategy.spread == "draw":
        return [ChosenScan(names[i], None, "drawn at random") for i in rng.permutation(len(names))[:number]]
    if strategy.spread == "typical":
        return _typical(names, vectors, number, rng, known_features)
    ranking = sorted(range(len(names)), key=lambda i: -values[i])  # stable: ties by name
    if strategy.spread == "top":
        return [_ranked(names, values, ranking, i, f"of {strategy.score}") for i in ranking[:number]]
    shortlist = ranking[: max(number, round(SHORTLIST_SHARE * len(names)))]
    best = most_uncertain_of_each_cluster(vectors[shortlist], [values[i] for i in shortlist], number, rng)
    words = f"of {strategy.score}, first of its cluster among the {len(shortlist)} highest"
    return [_ranked(names, values, ranking, shortlist[i], words) for i in best]


def affordable_scans(number: int, planes_per_scan: int, budget_planes: int | None) -> int:
    """How many of the scans asked for can be drawn with the planes that are left; None is no limit."""
    return number if budget_planes is None else max(0, min(number, budget_planes // planes_per_scan))


def painting_minutes(planes: int, minutes_per_plane: float = MINUTES_PER_PLANE) -> float:
    """Estimated time to draw so many planes."""
    return planes * minutes_per_plane


def _ranked(names: list[str], values: list[float], ranking: list[int], i: int, words: str) -> ChosenScan:
    return ChosenScan(names[i], values[i], f"rank {ranking.index(i) + 1} of {len(names)} by score {words}")


def _typical(
    names: list[str], vectors: np.ndarray, number: int, rng: np.random.Generator, known: np.ndarray | None
) -> list[ChosenScan]:
    known = np.zeros((0, vectors.shape[1])) if known is None else known
    scaled = standardise(np.concatenate([vectors, known]))
    rows, sizes = typical_of_each_cluster(scaled[: len(names)], number, rng, scaled[len(names) :])
    return [
        ChosenScan(names[i], n / len(names), f"most typical of {n} similar images without a labelled one")
        for i, n in zip(rows, sizes, strict=True)
    ]
