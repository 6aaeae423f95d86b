"""Learning from labels that nobody vouches for: doubtful ones corrected, and no logit allowed to be too sure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nnunet_gmabs.learning.confident import doubtful_voxels, first_max
from nnunet_gmabs.learning.losses import (
    Total,
    alone,
    clip_logits,
    masked_cross_entropy,
    masked_dice_loss,
    one_hot_foreground,
)


def noise_tolerant_loss(
    logits: Tensor,
    pseudo: Tensor,
    expert: Tensor,
    ignore_label: int,
    doubtful_as: str = "student",
    reachable_prob: float | None = 0.8,
    dice_weight: float = 0.0,
    total: Total = alone,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of clipped logits with denoised pseudo labels (GM-ABS 7), and ours: a Dice term beside it.

    L = mean over known voxels of - log softmax(clip(z))[y'] + w (1 - Dice(softmax z, y')),
    y' = denoise(y, argmax z, doubtful)

    Confident learning doubts whole batches at a time, of several processes each its own part; voxels that an expert
    drew are known, but never doubted.

    Args:
        logits: (B, C, X, Y[, Z]) of the student.
        pseudo: (B, 1, X, Y[, Z]) int, ignore_label where nothing is known.
        expert: (B, 1, X, Y[, Z]) int, ignore_label where nothing is drawn; takes the place of a pseudo label.
        ignore_label: of the data set.
        doubtful_as: see denoise; "pseudo" skips confident learning.
        reachable_prob: see max_norm_for_classes; None: logits are not clipped.
        dice_weight: w; 0: the cross-entropy alone (paper).
        total: see learning/losses.py.

    Returns:
        Scalar in the graph of logits (0 when nothing is known), and for the log, where there was denoising, the share
        of known voxels that are doubtful, and of the expert's voxels that would have been: how often doubt is wrong.
    """
    student = torch.softmax(logits.float(), 1)
    probs = student.detach()
    known = pseudo != ignore_label
    drawn = known & (expert != ignore_label)  # padding is known to the expert alone
    pseudo = torch.where(drawn, expert, pseudo)  # what was drawn since the round, too
    shares = {}
    if doubtful_as != "pseudo":
        doubtful = doubtful_voxels(probs, torch.where(known, pseudo, 0), known)
        shares["doubted_expert"] = (doubtful & drawn).sum() / drawn.sum().clamp(min=1)
        doubtful = doubtful & ~drawn
        pseudo = denoise(pseudo, first_max(probs.unbind(1))[:, None], doubtful, ignore_label, doubtful_as)
        shares["doubtful"] = doubtful.sum() / known.sum().clamp(min=1)
        known = pseudo != ignore_label
    clipped = logits
    if reachable_prob is not None:
        clipped = clip_logits(logits.float(), max_norm_for_classes(logits.shape[1], reachable_prob))
    loss = masked_cross_entropy(clipped, pseudo, known, "voxels", total)
    if dice_weight:
        foreground = one_hot_foreground(pseudo, logits.shape[1])
        dice = masked_dice_loss(student[:, 1:], foreground, known, batch_dice=True, total=total)
        loss = loss + dice_weight * dice
    return loss, shares


def denoise(pseudo: Tensor, student: Tensor, doubtful: Tensor, ignore_label: int, doubtful_as: str) -> Tensor:
    """Pseudo labels in which doubtful voxels take the student's label (binary: they flip), or are left out.

    Args:
        pseudo: (B, 1, X, Y[, Z]) int.
        student: the same shape, argmax of the student.
        doubtful: the same shape, bool.
        ignore_label: of the data set.
        doubtful_as: "student" (paper) or "ignore" (ours).

    Raises:
        ValueError: another name.
    """
    if doubtful_as == "student":
        return torch.where(doubtful, student.to(pseudo.dtype), pseudo)
    if doubtful_as == "ignore":
        return torch.where(doubtful, ignore_label, pseudo)
    raise ValueError(f"doubtful_as is {doubtful_as!r}; valid are 'student' and 'ignore'")


def max_norm_for_classes(num_classes: int, reachable_prob: float) -> float:
    """Largest norm of the logits at which no probability exceeds reachable_prob.

    Among logits of one norm, the most probable class is that of z_1 = a, z_j = - a / (C - 1), where
    p = 1 / (1 + (C - 1) exp(- a C / (C - 1))), so

    |z| = sqrt((C - 1) / C) log((C - 1) p / (1 - p))

    Paper: norm 1 for its two classes, which is p = 0.804; at 15 classes it would be 0.17.

    Args:
        num_classes: C >= 2.
        reachable_prob: in (1 / C, 1).

    Raises:
        ValueError: outside of that range.
    """
    if num_classes < 2 or not 1 / num_classes < reachable_prob < 1:
        raise ValueError(
            f"reachable_prob is {reachable_prob}; with {num_classes} classes it must be between 1/{num_classes} and 1"
        )
    odds = (num_classes - 1) * reachable_prob / (1 - reachable_prob)
    return math.sqrt((num_classes - 1) / num_classes) * math.log(odds)
