"""The supervised term: what a target says, and what it does not say."""

import pytest
import torch

from nnunet_gmabs.learning.losses import (
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    one_hot_foreground,
)
from nnunet_gmabs.learning.supervised import SupervisedLoss, labelled_mask

SHAPE = (5, 6, 7)
CLASSES, IGNORE = 3, 3


def label_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, *SHAPE, generator=generator).requires_grad_()
    target = torch.randint(0, CLASSES + 1, (2, 1, *SHAPE), generator=generator).to(torch.int16)
    return logits, target


def region_case(seed=0):
    """Two overlapping regions, the unknown voxels in the last channel (where the regions are False)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, *SHAPE, generator=generator).requires_grad_()
    unknown = torch.rand(2, 1, *SHAPE, generator=generator) < 0.5
    outer = (torch.rand(2, 1, *SHAPE, generator=generator) < 0.6) & ~unknown
    inner = (torch.rand(2, 1, *SHAPE, generator=generator) < 0.5) & outer
    return logits, torch.cat([outer, inner, unknown], 1)


def loss_for(ignore_label, regions, batch_dice=False, dice=1.0, cross_entropy=1.0, average="voxels"):
    return SupervisedLoss(ignore_label, regions, batch_dice, dice, cross_entropy, average)


def test_labelled_mask_of_label_maps_is_what_is_not_the_ignore_label():
    target = torch.tensor([0, 1, 3, 2, 3, 0]).reshape(1, 1, 1, 2, 3)
    expected = torch.tensor([1, 1, 0, 1, 0, 1]).bool().reshape(1, 1, 1, 2, 3)
    assert torch.equal(labelled_mask(target, 3, regions=False), expected)


def test_labelled_mask_of_regions_is_the_last_channel_inverted():
    _, target = region_case()
    assert torch.equal(labelled_mask(target, IGNORE, regions=True), ~target[:, 2:])


@pytest.mark.parametrize("regions", [False, True])
def test_without_ignore_label_everything_is_labelled(regions):
    target = torch.zeros(2, 2 if regions else 1, *SHAPE, dtype=torch.int16)
    mask = labelled_mask(target, None, regions)
    assert mask.dtype == torch.bool and mask.shape == (2, 1, *SHAPE) and mask.all()


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("average", ["voxels", "samples"])
@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_loss_of_label_maps_is_the_weighted_sum_of_its_parts(batch_dice, average, balance):
    logits, target = label_case()
    target[:, :, :3] *= target[:, :, :3] == IGNORE  # half of it background
    mask = target != IGNORE
    expected = 0.5 * masked_cross_entropy(logits, target, mask, average, class_balance=balance)
    one_hot = one_hot_foreground(target, CLASSES)
    expected = expected + 2.0 * masked_dice_loss(logits.softmax(1)[:, 1:], one_hot, mask, batch_dice)
    loss = loss_for(IGNORE, False, batch_dice, 2.0, 0.5, average)
    loss.class_balance = balance
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_loss_of_regions_is_the_weighted_sum_of_its_parts(balance):
    logits, target = region_case()
    mask = ~target[:, 2:]
    expected = 0.5 * masked_binary_cross_entropy(logits, target[:, :2], mask, "voxels", class_balance=balance)
    expected = expected + 2.0 * masked_dice_loss(logits.sigmoid(), target[:, :2], mask)
    loss = loss_for(IGNORE, True, dice=2.0, cross_entropy=0.5)
    loss.class_balance = balance
    torch.testing.assert_close(loss(logits, target), expected)


def test_loss_without_ignore_label_counts_every_voxel():
    logits, target = label_case()
    target = target % CLASSES
    everything = torch.ones_like(target, dtype=torch.bool)
    expected = masked_cross_entropy(logits, target, everything, "voxels")
    torch.testing.assert_close(loss_for(None, False, dice=0.0)(logits, target), expected)
    logits, target = region_case()
    expected = masked_binary_cross_entropy(logits, target[:, :2], everything, "voxels")
    torch.testing.assert_close(loss_for(None, True, dice=0.0)(logits, target[:, :2]), expected)


@pytest.mark.parametrize("average", ["voxels", "samples"])
def test_nothing_labelled_gives_exactly_0_in_the_graph_and_no_gradient(average):
    labels = torch.full((2, 1, *SHAPE), IGNORE, dtype=torch.int16)
    regions = torch.zeros(2, 3, *SHAPE, dtype=torch.bool)
    regions[:, 2] = True
    for target, is_region, channels in ((labels, False, CLASSES), (regions, True, 2)):
        logits = torch.randn(2, channels, *SHAPE).requires_grad_()
        loss = loss_for(IGNORE, is_region, average=average)(logits, target)
        assert loss.item() == 0.0
        assert (torch.autograd.grad(loss, logits)[0] == 0).all()


@pytest.mark.parametrize("regions", [False, True])
def test_an_unlabelled_sample_changes_neither_loss_nor_gradient(regions):
    logits, target = region_case() if regions else label_case()
    unlabelled = torch.zeros_like(target[:1])
    unlabelled[:, -1] = 1 if regions else IGNORE
    for batch_dice in (False, True):
        for average in ("voxels", "samples"):
            loss = loss_for(IGNORE, regions, batch_dice, average=average)
            alone = loss(logits, target)
            together = loss(torch.cat([logits, torch.randn_like(logits[:1])]), torch.cat([target, unlabelled]))
            torch.testing.assert_close(together, alone)
            gradients = [torch.autograd.grad(x, logits)[0] for x in (alone, together)]
            torch.testing.assert_close(gradients[0], gradients[1])


def test_two_dimensional_targets_work_too():
    logits, target = torch.randn(2, CLASSES, 5, 6), torch.randint(0, CLASSES, (2, 1, 5, 6))
    target[0] = IGNORE
    expected = torch.nn.functional.cross_entropy(logits[1:], target[1:, 0])
    torch.testing.assert_close(loss_for(IGNORE, False, dice=0.0)(logits, target), expected)
