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


def typical_of_each_cluster(
    features: np.ndarray, number: int, rng: np.random.Generator, known: np.ndarray | None = None
) -> tuple[list[int], list[int]]:
    """k-means, then of the largest clusters without a known row the row nearest to the cluster's mean.

    As TypiClust (Hacohen et al., ICML 2022) for a beginning without a model: typical scans of every kind. Rows far
    from all others, which a spread by distance would take first, are often broken scans.

    Args:
        features: (N, D), on comparable scales (see standardise).
        number: 1..N.
        rng: seeds k-means, and draws where there are fewer distinct rows than clusters needed.
        known: (M, D), rows that need no more choosing, such as labelled scans.

    Returns:
        Indices of rows, and how many of the N rows each one stands for; largest clusters first. Exactly as many as
        asked for.

    Raises:
        ValueError: if number is outside 1..N.
    """
    _check_number(number, len(features))
    known = np.zeros((0, features.shape[1])) if known is None else known
    rows = np.concatenate([features, known])
    groups = _k_means(rows, min(number + len(known), len(np.unique(rows, axis=0))), rng)
    mine, taken = groups[: len(features)], set(groups[len(features) :].tolist())
    sizes = {int(group): int((mine == group).sum()) for group in np.unique(mine) if group not in taken}
    largest = sorted(sizes, key=lambda group: (-sizes[group], int(np.flatnonzero(mine == group)[0])))[:number]
    chosen = [_nearest_to_mean(features, np.flatnonzero(mine == group)) for group in largest]
    rest = [int(i) for i in rng.permutation(len(features)) if i not in chosen][: number - len(chosen)]
    return chosen + rest, [sizes[group] for group in largest] + [1] * len(rest)


def _nearest_to_mean(features: np.ndarray, members: np.ndarray) -> int:
    distances = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
    return int(members[distances.argmin()])


def _k_means(features: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31 - 1))
    return KMeans(n_clusters=clusters, n_init=10, random_state=seed).fit_predict(features)


def _by_score(scores: Sequence[float]) -> list[int]:
    return [int(i) for i in np.argsort(-np.asarray(scores, dtype=float), kind="stable")]


def _check_number(number: int, available: int) -> None:
    if not 1 <= number <= available:
        raise ValueError(f"{number} scans asked for, but there are {available} to choose from")
