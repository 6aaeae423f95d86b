"""What a round of relabelling is judged by: numbers of each scan, and of all scans together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

Counts = list[list[int]]
"""For each foreground class [true positives, false positives, false negatives]."""


@dataclass(frozen=True)
class ScanFigures:
    """One scan in one round.

    Attributes:
        slices: with a prompt, over all views.
        encoded: of them, that the generalist's encoder has seen; the others' embeddings were known.
        masks: that the generalist gave.
        quality: mean predicted quality of the masks, NaN for none.
        views_agree: share of the voxels any view gave to a foreground class that all views gave to it, mean of classes.
        teacher_agrees: Dice of pseudo labels and teacher, mean of the classes that either shows; NaN for none.
        changed: share of voxels whose pseudo label differs from the round before; NaN in the first.
        expert_views: axis -> counts of that view's masks against the voxels that the expert drew.
        expert_fused: counts of the fused masks against them.
        true_teacher, true_pseudo: counts of the teacher's labels, and of the pseudo labels, against dense labels.
    """

    slices: int
    encoded: int
    masks: int
    quality: float
    views_agree: float
    teacher_agrees: float
    changed: float
    expert_views: dict[str, Counts] = field(default_factory=dict)
    expert_fused: Counts = field(default_factory=list)
    true_teacher: Counts = field(default_factory=list)
    true_pseudo: Counts = field(default_factory=list)


def overlap_counts(masks: np.ndarray, truth: np.ndarray, drawn: np.ndarray | None = None) -> Counts:
    """[[TP, FP, FN] of class 1..K] over the voxels that an expert drew.

    Args:
        masks: (K, X, Y, Z) bool; may overlap.
        truth: (X, Y, Z) int.
        drawn: (X, Y, Z) bool; None: everywhere.
    """
    if drawn is not None:
        masks, truth = masks[:, drawn], truth[drawn]
    pairs = [(mask, truth == k) for k, mask in enumerate(masks, 1)]
    return [[int(np.sum(m & t)), int(np.sum(m & ~t)), int(np.sum(~m & t))] for m, t in pairs]


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes, X, Y, Z) bool of the labels 1..classes."""
    return np.stack([labels == k for k in range(1, classes + 1)])


def dice_of_counts(counts: Sequence[Counts]) -> list[float]:
    """Dice of each class from counts summed over scans; NaN where neither side has the class."""
    if not counts:
        return []
    true, false_positive, false_negative = np.sum(counts, axis=0).T
    size = 2 * true + false_positive + false_negative
    return [float(2 * t / s) if s else float("nan") for t, s in zip(true, size, strict=True)]


def mean_dice(counts: Sequence[Counts]) -> float:
    """Mean of dice_of_counts over the classes that are there; NaN for none."""
    return mean(dice_of_counts(counts))


def mean(values: Iterable[float]) -> float:
    """The mean without NaN; NaN if nothing else is there."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def summary(figures: Sequence[ScanFigures]) -> dict[str, float]:
    """Of a round, for the log: sums of counts, means over scans of all else (NaN does not count)."""
    result: dict[str, float] = {
        "scans": len(figures),
        "slices": sum(f.slices for f in figures),
        "encoded": sum(f.encoded for f in figures),
        "masks": sum(f.masks for f in figures),
    }
    for name in ("quality", "views_agree", "teacher_agrees", "changed"):
        result[name] = mean(getattr(f, name) for f in figures)
    for axis in sorted({axis for f in figures for axis in f.expert_views}):
        result[f"expert_dice/view_{axis}"] = mean_dice(
            [f.expert_views[axis] for f in figures if axis in f.expert_views]
        )
    for name, attribute in (("expert", "expert_fused"), ("true_teacher", "true_teacher"), ("true", "true_pseudo")):
        counts = [getattr(f, attribute) for f in figures if getattr(f, attribute)]
        result |= {f"{name}_dice/class_{k}": dice for k, dice in enumerate(dice_of_counts(counts), 1)}
    return result
