"""Confident learning: which given labels contradict what a model predicts (Northcutt et al., JAIR 2021)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# The three constants of cleanlab 2, with which the answers here are compared.
THRESHOLD_SLACK = 1e-6  # a probability counts as confident this much below the threshold
LOWEST_THRESHOLD = 2e-6
LABEL_BONUS = 1e-6  # added to the given label's probability before asking what the model predicts


def doubtful_voxels(probs: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """find_label_issues over all known voxels of a batch at once.

    Args:
        probs: (B, C, X, Y[, Z]), softmax of the student; gets no gradient.
        labels: (B, 1, X, Y[, Z]) int; read only where known is True.
        known: (B, 1, X, Y[, Z]) bool, voxels that have a label.

    Returns:
        (B, 1, X, Y[, Z]) bool; False where nothing is known.
    """
    by_class = probs.detach().movedim(1, 0).flatten(1)  # (C, voxels): the layout that is used inside
    inside = known.flatten().nonzero()[:, 0]
    doubtful = torch.zeros(known.numel(), dtype=torch.bool, device=known.device)
    doubtful[inside] = find_label_issues(by_class[:, inside].T, labels.flatten()[inside])
    return doubtful.view(known.shape)


@torch.no_grad()
def find_label_issues(probs: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> Tensor:
    """Samples whose given label is doubtful, by class and by noise rate both.

    The answer of cleanlab.filter.find_label_issues(..., filter_by="both"), equal in float64 where no two samples of
    a class tie. Ties at a cut are all doubtful (cleanlab: some of them, at random).

    1. t_k = mean of p_k over samples labelled k; a sample is confidently of class j if p_j >= t_j (if of several,
       then of its most probable class).
    2. J_kj = samples labelled k, confidently of class j; scaled so that row k sums to the number labelled k.
    3. Doubtful by class: the n_k - J_kk samples labelled k with the lowest p_k. Doubtful by noise rate: for each
       j != k the J_kj samples labelled k with the highest p_j - p_k.
    4. Doubtful: both, and the label is not what the model predicts.

    Args:
        probs: (N, C) in [0, 1], predictions that should not have been fitted to the labels.
        labels: (N,) int in 0..C-1; classes may be absent.

    Returns:
        (N,) bool on the device of probs; all False where only one class is labelled.

    Raises:
        ValueError: shapes that do not fit.
    """
    p = torch.as_tensor(probs).T.contiguous()  # (C, N): sums and maxima over classes run along memory
    labels = torch.as_tensor(labels, device=p.device).long()
    if p.ndim != 2 or labels.shape != p.shape[1:]:
        raise ValueError(f"probs {tuple(p.T.shape)} and labels {tuple(labels.shape)} must be (N, C) and (N,)")
    issues = torch.zeros_like(labels, dtype=torch.bool)
    members = [(labels == k).nonzero()[:, 0] for k in range(len(p))]
    removed = noise_counts(_confident_joint(p, labels, members), [len(m) for m in members])
    contradicted = first_max([row + LABEL_BONUS * (labels == k) for k, row in enumerate(p)]) != labels
    for k, inside in enumerate(members):
        if len(inside) > 1:
            issues[inside] = _issues_of_class(p[:, inside], k, removed[k].tolist(), contradicted[inside])
    return issues


def first_max(rows: Tensor | Sequence[Tensor]) -> Tensor:
    """int64: argmax over few tensors of one shape, the first of equals; on a CPU ten times as fast as torch.argmax."""
    best, index = rows[0], torch.zeros_like(rows[0], dtype=torch.long)
    for k, row in enumerate(rows[1:], 1):
        index.masked_fill_(row > best, k)
        best = torch.maximum(best, row)
    return index


def _confident_joint(p: Tensor, labels: Tensor, members: list[Tensor]) -> np.ndarray:
    """(C, C) int: samples with given label (row) that are confidently of a class (column)."""
    wide = torch.float32 if p.device.type == "mps" else torch.float64  # Apple GPUs have no float64
    means = [p[k, inside].mean(dtype=wide) if len(inside) else p.new_tensor(2.0) for k, inside in enumerate(members)]
    thresholds = torch.stack(means).clamp(min=LOWEST_THRESHOLD) - THRESHOLD_SLACK
    number, guess = torch.zeros_like(labels), torch.zeros_like(labels)
    for k, row in enumerate(p):
        confident = row >= thresholds[k].to(row)
        number += confident
        guess.masked_fill_(confident, k)
    guess = torch.where(number > 1, first_max(p), guess)
    pairs = torch.where(number > 0, labels * len(p) + guess, len(p) ** 2)
    return torch.bincount(pairs, minlength=len(p) ** 2 + 1)[:-1].view(len(p), len(p)).cpu().numpy()


def noise_counts(joint: np.ndarray, label_counts: list[int]) -> np.ndarray:
    """How many samples of each given label are to be doubted in favour of each class.

    The joint gets at least 1 on its diagonal, rows that sum to the label counts, and whole numbers; then again at
    least 1 on the diagonal, so that no class loses all of its samples.

    Args:
        joint: (C, C) int, given label x confident class.
        label_counts: C, samples with each label.

    Returns:
        (C, C) int; on the diagonal the samples that stay.
    """
    joint = np.asfortranarray(joint, dtype=np.float64)  # cleanlab's order of summation: halves are rounded below
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    counts = np.asarray(label_counts, dtype=np.float64)
    joint = (joint.T / joint.sum(1) * counts).T
    joint = joint / max(joint.sum(), 1e-100) * counts.sum()
    joint = np.stack([_round_keeping_sum(row) for row in joint])
    kept = np.maximum(joint.diagonal(), 1)
    noisy_classes = np.maximum(np.count_nonzero(joint, axis=1) - 1, 1)
    joint = np.maximum(joint - ((kept - joint.diagonal()) / noisy_classes)[:, None], 0)
    np.fill_diagonal(joint, kept)
    return joint.astype(np.int64)


def _round_keeping_sum(values: np.ndarray) -> np.ndarray:
    """Rounded, then those rounded the farthest the wrong way corrected until the sum is the rounded sum."""
    rounded = values.round()
    while missing := int((values.sum().round() - rounded.sum()).round()):
        order = np.argsort(values - rounded)
        chosen = order[::-1][:missing] if missing > 0 else order[:-missing]
        rounded[chosen] += np.sign(missing)
    return rounded


def _issues_of_class(p: Tensor, k: int, removed: list[int], contradicted: Tensor) -> Tensor:
    """(n,) bool, part of contradicted, for the samples (C, n) labelled k, from one row of noise_counts."""
    by_noise_rate = torch.zeros_like(contradicted)
    for j, number in enumerate(removed):
        if j != k:
            by_noise_rate |= _lowest(p[k] - p[j], number, contradicted)
    return _lowest(p[k], p.shape[1] - removed[k], by_noise_rate)


def _lowest(values: Tensor, number: int, asked: Tensor) -> Tensor:
    """(n,) bool: which of the samples asked for are among the `number` lowest values of all.

    Only values up to the highest one asked for are ranked: few, because contradicted samples are few and low.
    """
    if number < 1 or not asked.any():
        return torch.zeros_like(asked)
    ranked = values[values <= values[asked].max()]
    return asked & (values <= ranked.kthvalue(number).values) if number < len(ranked) else asked
