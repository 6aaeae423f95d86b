"""The unsupervised term: the student follows what the teacher says of unlabelled images."""

import torch
from torch import Tensor

from nnunet_gmabs.learning.losses import (
    Total,
    alone,
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    mean_squared_difference,
    one_hot_foreground,
)


def to_probs(logits: Tensor, regions: bool) -> Tensor:
    """Softmax over the class axis 1, or a sigmoid for each region; float32."""
    return torch.sigmoid(logits.float()) if regions else torch.softmax(logits.float(), 1)


def probability_consistency(
    logits: Tensor, teacher_probs: list[Tensor], regions: bool = False, total: Total = alone
) -> Tensor:
    """Mean over views of the squared difference of student's and teacher's probabilities (GM-ABS 5).

    L = mean over views i of MSE(softmax(z), p_i)

    Args:
        logits: (B, C, X, Y[, Z]) of the student.
        teacher_probs: one (B, C, X, Y[, Z]) a perturbed view; gets no gradient.
        regions: sigmoid instead of softmax.
        total: see learning/losses.py.

    Returns:
        Scalar in the graph of logits; 0 for an empty batch.
    """
    probs = to_probs(logits, regions)
    return torch.stack([mean_squared_difference(probs, view.detach(), total) for view in teacher_probs]).mean()


def confident_consistency(
    logits: Tensor,
    teacher_probs: list[Tensor],
    confidence: float,
    regions: bool = False,
    total: Total = alone,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Dice + cross-entropy on the teacher's own labels where the mean of its views is sure of them.

    p = mean of the views,  y = argmax p,  kept where max p > confidence
    Ours, after FixMatch (Sohn et al., NeurIPS 2020), with a teacher and with Dice, which keeps small
    structures from drowning in confident background.

    Args:
        logits: (B, C, X, Y[, Z]) of the student.
        teacher_probs: one (B, C, X, Y[, Z]) a perturbed view; gets no gradient.
        confidence: in [0, 1].
        regions: each region has its own label (p > 1/2), sure where all regions are.
        total: see learning/losses.py.
        own: (B, 1, X, Y[, Z]) bool, where the student saw what the teacher has seen; None: everywhere.

    Returns:
        Scalar in the graph of logits (0 where nothing is kept), and the share of this process's voxels kept.
    """
    probs = torch.stack(teacher_probs).mean(0)
    if regions:
        labels = probs > 0.5
        kept = torch.maximum(probs, 1 - probs).amin(1, keepdim=True) > confidence
        kept = kept if own is None else kept & own
        cross_entropy = masked_binary_cross_entropy(logits, labels, kept, "voxels", total)
        foreground = labels
    else:
        best, labels = probs.max(1, keepdim=True)
        kept = best > confidence
        kept = kept if own is None else kept & own
        cross_entropy = masked_cross_entropy(logits, labels, kept, "voxels", total)
        foreground = one_hot_foreground(labels, logits.shape[1])
    student = to_probs(logits, regions)
    probs = student if regions else student[:, 1:]
    dice = masked_dice_loss(probs, foreground, kept, batch_dice=True, total=total)
    share = kept.float().mean() if kept.numel() else kept.new_zeros((), dtype=torch.float32)
    return cross_entropy + dice, share
