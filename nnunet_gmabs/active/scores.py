"""How much of a scan a model is unsure of, or two models see differently: one number a scan, one map for its planes."""

from __future__ import annotations

import numpy as np


def normalised_entropy(probs: np.ndarray) -> np.ndarray:
    """Entropy of every voxel as a share of the highest possible.

    h = - sum_k p_k log p_k / log C, with 0 log 0 = 0

    Args:
        probs: (C, X, Y, Z), C >= 2, summing to 1 over the first axis.

    Returns:
        (X, Y, Z) in [0, 1].

    Raises:
        ValueError: if there is only one class.
    """
    classes = probs.shape[0]
    if classes < 2:
        raise ValueError(f"probs has shape {probs.shape}: one class alone is never uncertain; two or more are needed")
    entropy = np.zeros(probs.shape[1:], dtype=np.float64)
    for p in probs:  # class by class, so that no array of all classes is made
        entropy -= np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return np.clip(entropy / np.log(classes), 0.0, 1.0)


def uncertain_fraction(probs: np.ndarray, threshold: float) -> float:
    """Share of voxels whose normalised entropy is above the threshold (GM-ABS, equation for choosing scans).

    Args:
        probs: (C, X, Y, Z), as in normalised_entropy.
        threshold: in [0, 1]; paper: 0.35 rising to 0.60 during the training.

    Returns:
        In [0, 1]; 0 for a scan without voxels.
    """
    entropy = normalised_entropy(probs)
    return float((entropy > threshold).mean()) if entropy.size else 0.0


def most_uncertain_region(probs: np.ndarray) -> np.ndarray:
    """Regions may overlap, so their probabilities do not sum to 1; this gives a scan of two classes that do.

    Args:
        probs: (R, X, Y, Z), each region's own probability.

    Returns:
        (2, X, Y, Z): at every voxel 1 - p and p of the region whose p is nearest to one half.
    """
    nearest = np.abs(probs - 0.5).argmin(axis=0)
    chosen = np.take_along_axis(probs, nearest[None], axis=0)
    return np.concatenate([1 - chosen, chosen])


def disagreement(labels_a: np.ndarray, labels_b: np.ndarray) -> float:
    """Share of the voxels that either sees as foreground on which the two differ: student and teacher, two networks.

    d = |a != b| / |a > 0 or b > 0|. Background that both agree on does not count, so that a large scan does not
    look agreed upon only because it is large.

    Args:
        labels_a: (X, Y, Z) integers, 0 is background.
        labels_b: the same of the other model.

    Returns:
        In [0, 1]; 0 where neither sees foreground.

    Raises:
        ValueError: if the shapes differ.
    """
    if labels_a.shape != labels_b.shape:
        raise ValueError(f"labels of shapes {labels_a.shape} and {labels_b.shape} cannot be compared")
    either = (labels_a > 0) | (labels_b > 0)
    return float((labels_a != labels_b).sum() / either.sum()) if either.any() else 0.0
