"""One label map from the masks that the generalist gave on several views."""

from __future__ import annotations

import numpy as np


def fuse_views(votes: np.ndarray, probs: np.ndarray, strategy: str = "majority") -> np.ndarray:
    """The class on which enough views agree, voxel by voxel.

    Paper: one foreground class. Ours for several: a class claims a voxel that enough views gave it; of several
    claiming classes the one with more votes wins, then the one with the higher probability, then the lower number.

    Args:
        votes: (V, K, X, Y, Z) bool, the mask of each view and foreground class; V = 3 unless a view is left out.
        probs: (K, X, Y, Z) of the specialist, foreground classes only.
        strategy: "majority" (more than half of the views) or "unanimous" (all).

    Returns:
        (X, Y, Z) int16: k + 1 for class k of the K, 0 = background.

    Raises:
        ValueError: shapes that do not fit, no view, another strategy.
    """
    votes = np.asarray(votes)
    if votes.ndim < 2 or votes.shape[1:] != np.shape(probs):
        raise ValueError(f"votes {votes.shape} must be (views, *{np.shape(probs)}), as probs")
    return fuse_counts(votes.astype(bool, copy=False).sum(0, dtype=np.uint8), probs, len(votes), strategy)


def fuse_counts(counts: np.ndarray, probs: np.ndarray, views: int, strategy: str = "majority") -> np.ndarray:
    """fuse_views from the number of views (K, X, Y, Z) uint8 that gave each class: no memory for every view."""
    needed = needed_votes(views, strategy)
    counts, probs = np.asarray(counts), np.asarray(probs)
    if counts.shape != probs.shape:
        raise ValueError(f"counts {counts.shape} and probs {probs.shape} differ")
    fused = np.zeros(counts.shape[1:], dtype=np.int16)
    best_count = np.zeros(fused.shape, dtype=counts.dtype)
    best_prob = np.zeros(fused.shape, dtype=probs.dtype)
    for k, (count, prob) in enumerate(zip(counts, probs, strict=True)):
        more = (count > best_count) | ((count == best_count) & (prob > best_prob))
        wins = more & (count >= needed)
        fused[wins], best_count[wins], best_prob[wins] = k + 1, count[wins], prob[wins]
    return fused


def needed_votes(views: int, strategy: str) -> int:
    """How many of the views must agree: more than half of them, or all."""
    if views < 1:
        raise ValueError("no view; there is nothing to fuse")
    if strategy not in ("majority", "unanimous"):
        raise ValueError(f"strategy is {strategy!r}; valid are 'majority' and 'unanimous'")
    return views // 2 + 1 if strategy == "majority" else views


def view_agreement(counts: np.ndarray, views: int) -> np.ndarray:
    """(K,) share of the voxels that any view gave to a class which all views gave to it; NaN where none did.

    Args:
        counts: (K, X, Y, Z), number of views that gave the voxel to the class.
        views: their number.
    """
    axes = tuple(range(1, np.ndim(counts)))
    by_any, by_all = (counts > 0).sum(axes), (counts == views).sum(axes)
    return np.where(by_any > 0, by_all / np.maximum(by_any, 1), np.nan)


def keep_expert_labels(fused: np.ndarray, expert: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """The expert's label where there is one, the fused label elsewhere; a new array of fused's type.

    Args:
        fused: (X, Y, Z) int.
        expert: (X, Y, Z) int, as drawn (data.expert.decode).
        ignore_label: value of expert where nobody has drawn; None when everything is drawn.
    """
    drawn = np.ones(np.shape(expert), dtype=bool) if ignore_label is None else np.asarray(expert) != ignore_label
    return np.where(drawn, expert, fused).astype(fused.dtype)


def where_both_agree(generalist: np.ndarray, specialist: np.ndarray, ignore_label: int) -> np.ndarray:
    """The label that both give, the ignore label where they differ; (X, Y, Z) of the generalist's type."""
    return np.where(generalist == specialist, generalist, ignore_label).astype(generalist.dtype)
