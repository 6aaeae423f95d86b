"""Mutual teaching: a network learns from the labels of which the other one is sure (CMEMS 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_gmabs.learning.losses import Total, alone, masked_cross_entropy, masked_dice_loss, one_hot_foreground


@dataclass(frozen=True)
class PseudoLabels:
    """What a network says of a batch, and where it is sure.

    Attributes:
        labels: (B, 1, X, Y[, Z]) int64.
        kept: (B, 1, X, Y[, Z]) bool.
    """

    labels: Tensor
    kept: Tensor


@torch.no_grad()
def pseudo_labels(logits: Tensor, confidence: float) -> PseudoLabels:
    """Labels y = argmax f(w), kept where max softmax f(w) > tau.

    Args:
        logits: (B, C, X, Y[, Z]) of the teaching network for the weakly perturbed images; gets no gradient.
        confidence: tau in [0, 1]; exactly tau is not sure enough.
    """
    best, labels = torch.softmax(logits.float(), 1).max(1, keepdim=True)
    return PseudoLabels(labels, best > confidence)


def mutual_loss(
    logits: Tensor,
    taught: PseudoLabels,
    dice_weight: float = 0.0,
    balanced: bool = False,
    total: Total = alone,
) -> Tensor:
    """CE(f(s), y) over kept voxels (paper), and optionally 1 - Dice over them (ours).

    The mean runs over all kept voxels of the batch. Dice keeps small structures from drowning in confident
    background; a class that is nowhere kept is left out of it.

    Args:
        logits: (B, C, X, Y[, Z]) of the learning network for a perturbed view of the same geometry.
        taught: labels of the other network.
        dice_weight: factor of the Dice term.
        balanced: see balanced_cross_entropy.
        total: see learning/losses.py.

    Returns:
        Scalar in the graph of logits; exactly 0 where nothing is kept, and for an empty batch.
    """
    if balanced:
        loss = balanced_cross_entropy(logits, taught, total)
    else:
        loss = masked_cross_entropy(logits, taught.labels, taught.kept, "voxels", total)
    if dice_weight:
        probs = torch.softmax(logits.float(), 1)[:, 1:]
        foreground = one_hot_foreground(taught.labels, logits.shape[1])
        dice = masked_dice_loss(probs, foreground, taught.kept, batch_dice=True, total=total)
        loss = loss + dice_weight * dice
    return loss


def balanced_cross_entropy(logits: Tensor, taught: PseudoLabels, total: Total = alone) -> Tensor:
    """CE(f(s), y) over kept voxels, in which each class has the share that the other network sees of it (ours).

    L = sum_k n_k CE_k / sum_k n_k,  CE_k the mean over kept voxels of class k, n_k all voxels of class k, kept or not;
    over the classes that are kept somewhere

    A threshold keeps nearly all background and half of a foreground whose border is not sure. The plain mean then
    teaches that there is less foreground than both networks see, and they shrink it together.

    Args:
        logits: as for mutual_loss.
        taught: as for mutual_loss.
        total: see learning/losses.py.
    """
    voxel_loss = F.cross_entropy(logits.float(), taught.labels[:, 0], reduction="none") * taught.kept[:, 0]
    masks = [taught.labels[:, 0] == k for k in range(logits.shape[1])]
    sums = [torch.stack([voxel_loss[m].sum(), taught.kept[:, 0][m].sum(), m.sum()]) for m in masks]
    summed, kept, seen = total(torch.stack(sums)).unbind(1)
    seen = seen * (kept > 0)
    return (seen * summed / kept.clamp(min=1)).sum() / seen.sum().clamp(min=1)


def kept_shares(taught: PseudoLabels, num_classes: int) -> list[float]:
    """For each class the share of its voxels that is kept; NaN for a class that the network sees nowhere."""
    labels = taught.labels.flatten()
    seen = torch.bincount(labels, minlength=num_classes)
    kept = torch.bincount(labels[taught.kept.flatten()], minlength=num_classes)
    return (kept.float() / seen).tolist()  # 0 / 0 is NaN
