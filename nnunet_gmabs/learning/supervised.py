"""The supervised term: Dice and cross-entropy on what an expert has drawn."""

import torch
from torch import Tensor, nn

from nnunet_gmabs.learning.losses import (
    Total,
    alone,
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    one_hot_foreground,
)


class SupervisedLoss(nn.Module):
    """w_dice (1 - Dice) + w_ce cross-entropy, both over labelled voxels; one network output, one target.

    Attributes:
        class_balance: of the cross-entropy, see masked_cross_entropy; 0 until somebody sets it.

    Args:
        ignore_label: value of unknown voxels, None when every voxel is labelled.
        regions: sigmoid outputs with targets (B, regions [+ unknown], X, Y[, Z]) bool instead of label maps.
        batch_dice: Dice over the whole batch, as the plans say.
        dice_weight, cross_entropy_weight, cross_entropy_average: see SupervisionConfig.
        total: see learning/losses.py.
    """

    def __init__(
        self,
        ignore_label: int | None,
        regions: bool,
        batch_dice: bool,
        dice_weight: float,
        cross_entropy_weight: float,
        cross_entropy_average: str,
        total: Total = alone,
    ) -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.regions = regions
        self.batch_dice = batch_dice
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.cross_entropy_average = cross_entropy_average
        self.class_balance = 0.0
        self.total = total

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar in the graph of logits (B, C, X, Y[, Z]); exactly 0 when nothing in target is labelled."""
        mask = labelled_mask(target, self.ignore_label, self.regions)
        how = (mask, self.cross_entropy_average, self.total, self.class_balance)
        if self.regions:
            drawn = target[:, : logits.shape[1]]
            cross_entropy = masked_binary_cross_entropy(logits, drawn, *how)
            probs = torch.sigmoid(logits.float())
        else:
            drawn = one_hot_foreground(target, logits.shape[1])
            cross_entropy = masked_cross_entropy(logits, target, *how)
            probs = torch.softmax(logits.float(), 1)[:, 1:]
        loss = self.cross_entropy_weight * cross_entropy
        if self.dice_weight:
            loss = loss + self.dice_weight * masked_dice_loss(probs, drawn, mask, self.batch_dice, self.total)
        return loss


def labelled_mask(target: Tensor, ignore_label: int | None, regions: bool) -> Tensor:
    """(B, 1, X, Y[, Z]) bool: voxels that an expert has labelled, from a target as the loader gives it."""
    if ignore_label is None:
        return torch.ones_like(target[:, :1], dtype=torch.bool)
    return ~target[:, -1:].bool() if regions else target != ignore_label
