"""What a difference between two methods is worth: a bootstrap over scans and seeds, paired by scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ENOUGH_SCANS = 8  # with fewer the interval excludes 0 by chance in 20 to 100 % of comparisons, not in 10 %


@dataclass(frozen=True)
class Comparison:
    """A mean difference and where it lies.

    Attributes:
        mean: of all paired differences.
        low, high: ends of the interval.
        level: its coverage, such as 0.9.
        seeds, scans: how many went in.
    """

    mean: float
    low: float
    high: float
    level: float
    seeds: int
    scans: int

    @property
    def counts(self) -> bool:
        """Whether the interval excludes 0 and is of enough scans, so that a claim may be made."""
        return (self.low > 0 or self.high < 0) and self.scans >= ENOUGH_SCANS

    @property
    def verdict(self) -> str:
        """Whether it counts: "yes", "one seed" where other trainings may differ, "few scans" to tell, or "no"."""
        if self.scans < ENOUGH_SCANS:
            return "few scans"
        if not self.counts:
            return "no"
        return "yes" if self.seeds > 1 else "one seed"


def paired_bootstrap(differences: np.ndarray, level: float = 0.9, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Mean paired difference with a percentile interval that knows both scans and seeds as sources of chance.

    Each resample draws S seeds and N scans with replacement, independently of each other, and takes

        m* = 1/(S N) sum_i sum_j d[s_i, n_j]

    the mean over the crossed table. The interval holds the middle `level` of all m*: it answers how much the mean
    would move with other test scans and with other seeds (which scans were labelled, first weights). With one seed
    only the scans are drawn, and the interval says nothing about other seeds. Two or three seeds show the spread
    between seeds only coarsely, and the interval is too narrow: where seeds differ as much as scans do, and the methods
    do not, a 90 % interval of 40 scans excludes 0 in 40 % (two seeds) and 28 % (three) of comparisons (600 drawn).

    Args:
        differences: (seeds, scans) float, Dice of one method minus that of the other, on the same scan with the same
            seed. One-dimensional input is one seed.
        level: coverage of the interval, in (0, 1).
        resamples: how many.
        seed: of the resampling.

    Raises:
        ValueError: if there is no difference, or one is not finite.
    """
    table = np.atleast_2d(np.asarray(differences, dtype=float))
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"differences has shape {np.shape(differences)}; (seeds, scans) with at least one is needed")
    if not np.isfinite(table).all():
        raise ValueError("differences holds values that are not finite; leave these scans out of both methods")
    seeds, scans = table.shape
    rng = np.random.default_rng(seed)
    # How often each seed and each scan was drawn; the mean over the drawn table is then a product.
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    scan_counts = rng.multinomial(scans, np.full(scans, 1 / scans), size=resamples)
    means = np.einsum("rs,sn,rn->r", seed_counts, table, scan_counts, optimize=True) / table.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Comparison(float(table.mean()), float(low), float(high), level, seeds, scans)
