"""Choosing scans that differ from one another: what a scan looks like as a vector, and how to spread over vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HISTOGRAM_BINS = 20  # paper


def intensity_histogram(image: np.ndarray, bins: int = HISTOGRAM_BINS) -> np.ndarray:
    """Shares of voxels in equal bins between the lowest and the highest intensity of this image.

    Args:
        image: any shape, at least one voxel.
        bins: how many.

    Returns:
        (bins,), summing to 1. An image of one intensity lies in the first bin (the released program divides by 0).
    """
    low, high = float(image.min()), float(image.max())
    if low == high:
        return np.eye(bins)[0]
    return np.histogram(image, bins=bins, range=(low, high))[0] / image.size


def image_descriptor(image: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """What can be said about a scan before any model exists.

    Of each channel: its histogram, the mean and standard deviation as shares of its range, and the skewness; of the
    scan: the logarithm of its size in mm and of its spacing on each axis.

    Args:
        image: (channels, X, Y, Z).
        spacing_mm: of axes 0, 1, 2.

    Returns:
        (channels * (HISTOGRAM_BINS + 3) + 6,).
    """
    parts = []
    for channel in image:
        low, spread = float(channel.min()), float(np.ptp(channel))
        scaled = (channel - low) / spread if spread else np.zeros(channel.shape)
        mean, sd = float(scaled.mean()), float(scaled.std())
        skewness = float(((scaled - mean) ** 3).mean() / sd**3) if sd else 0.0
        parts += [intensity_histogram(channel), np.array([mean, sd, skewness])]
    spacing = np.asarray(spacing_mm, dtype=float)
    return np.concatenate([*parts, np.log(spacing * image.shape[1:]), np.log(spacing)])


def standardise(features: np.ndarray) -> np.ndarray:
    """Each column moved to mean 0 and divided by its standard deviation; constant columns become 0.

    Args:
        features: (N, D).
    """
    sd = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(sd > 0, sd, 1.0)


def most_uncertain_of_each_cluster(
    features: np.ndarray, scores: Sequence[float], number: int, rng: np.random.Generator
) -> list[int]:
    """k-means into as many clusters as rows are asked for, then the row with the highest score of each.

    Paper, but for one fault of the released program: a cluster of one row counts as well, so that it is always
    exactly the number asked for. Where there are fewer distinct rows than that, the highest scores of the rest follow.

    Args:
        features: (N, D).
        scores: of the N rows.
        number: 1..N.
        rng: seeds k-means.

    Returns:
        Indices of rows, highest score first; ties go to the lower index.

    Raises:
        ValueError: if number is outside 1..N.
    """
    _check_number(number, len(features))
    clusters = min(number, len(np.unique(features, axis=0)))
    groups = _k_means(features, clusters, rng)
    order = _by_score(scores)
    best = {group: next(i for i in order if groups[i] == group) for group in np.unique(groups)}
    chosen = list(best.values())
    chosen += [i for i in order if i not in chosen][: number - len(chosen)]
    return [i for i in order if i in chosen]


def farthest_points(
    features: np.ndarray, number: int, rng: np.random.Generator, known: np.ndarray | None = None
) -> tuple[list[int], list[float]]:
    """Rows one after the other, each the one farthest from all that are chosen or known (greedy k-center).

    Without known rows the first is the one nearest to the mean of all: a typical scan, then what differs from it.

    Args:
        features: (N, D), on comparable scales (see standardise).
        number: 1..N.
        rng: breaks ties.
        known: (M, D), rows that need no more choosing, such as labelled scans.

    Returns:
        Indices of rows in the order chosen, and the distance of each to what was chosen or known before it (for a
        first one without known rows: to the mean).

    Raises:
        ValueError: if number is outside 1..N.
    """
    _check_number(number, len(features))
    order = rng.permutation(len(features))  # the first of equals after shuffling is a random one of them
    shuffled = features[order]
    chosen: list[int] = []
    distances: list[float] = []
    nearest = np.full(len(features), np.inf)
    if known is not None and len(known):
        nearest = _distances(shuffled, known).min(axis=1)
    else:
        to_mean = _distances(shuffled, shuffled.mean(axis=0)[None])[:, 0]
        chosen, distances = [int(to_mean.argmin())], [float(to_mean.min())]
        nearest = _distances(shuffled, shuffled[chosen])[:, 0]
    while len(chosen) < number:
        nearest[chosen] = -1.0
        row = int(nearest.argmax())
        chosen.append(row)
        distances.append(float(nearest[row]))
        nearest = np.minimum(nearest, _distances(shuffled, shuffled[[row]])[:, 0])
    return [int(order[i]) for i in chosen], distances


def _k_means(features: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31 - 1))
    return KMeans(n_clusters=clusters, n_init=10, random_state=seed).fit_predict(features)


def _by_score(scores: Sequence[float]) -> list[int]:
    return [int(i) for i in np.argsort(-np.asarray(scores, dtype=float), kind="stable")]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) Euclidean distances between rows."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def _check_number(number: int, available: int) -> None:
    if not 1 <= number <= available:
        raise ValueError(f"{number} scans asked for, but there are {available} to choose from")
