"""Whether one method is better than another: paired differences, bootstrapped over seeds and scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.90


@dataclass(frozen=True)
class Interval:
    """A mean difference and the interval in which it lies with 90 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def counts(self) -> bool:
        """Whether the difference counts: its interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(differences: np.ndarray, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean paired difference with its 90 % bootstrap interval over seeds and scans.

    Each draw takes as many seeds and as many scans as there are, with replacement and independently of
    each other, and means the differences of all pairs:

    d* = mean over s in S*, v in V* of d_sv,    interval = 5th to 95th percentile of d*

    Both matter: scans, because a test set is a sample of patients; seeds, because a training is a sample of
    possible ones. With one seed the interval says nothing about other seeds.

    Args:
        differences: (seeds, scans), score of one method minus the other's on the same scan and seed; a NaN
            (neither truth nor prediction has the class) is left out of means.
        draws: bootstrap samples.
        seed: of the generator.

    Raises:
        ValueError: not two axes, or no finite value.
    """
    if differences.ndim != 2 or not np.isfinite(differences).any():
        raise ValueError(f"differences of shape {differences.shape} hold no (seeds, scans) table of numbers")
    rng = np.random.default_rng(seed)
    num_seeds, num_scans = differences.shape
    means = np.empty(draws)
    for i in range(draws):
        rows, columns = rng.integers(num_seeds, size=num_seeds), rng.integers(num_scans, size=num_scans)
        means[i] = np.nanmean(differences[np.ix_(rows, columns)])
    low, high = np.nanpercentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(np.nanmean(differences)), float(low), float(high))
