"""Losses look only at voxels somebody vouches for."""

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

from nnunet_gmabs.learning.losses import (
    SMOOTH,
    clip_logits,
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    mean_squared_difference,
    one_hot_foreground,
    weighted_sum,
)

SHAPE = (5, 6, 7)
CLASSES = 4
GARBAGE = 200  # what nnU-Net's ignore label or anything else may put where the mask is False


def random_case(seed, batch=3, share=0.2):
    """Logits, a target with garbage outside the mask, the mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, CLASSES, *SHAPE, generator=generator)
    target = torch.randint(0, CLASSES, (batch, 1, *SHAPE), generator=generator).to(torch.int16)
    mask = torch.rand(batch, 1, *SHAPE, generator=generator) < share
    return logits.requires_grad_(), torch.where(mask, target, GARBAGE), mask


def voxels_of(mask, sample):
    return [tuple(v) for v in mask[sample, 0].nonzero().tolist()]


def reference_cross_entropy(logits, target, mask, average, balance=0.0):
    """The equations, voxel by voxel."""
    classes = [int(target[(b, 0, *voxel)]) for b in range(len(logits)) for voxel in voxels_of(mask, b)]
    numbers = {k: classes.count(k) for k in classes}
    weights = {
        k: n**-balance * len(classes) / sum(m ** (1 - balance) for m in numbers.values()) for k, n in numbers.items()
    }
    per_sample = []
    for b in range(len(logits)):
        losses = []
        for voxel in voxels_of(mask, b):
            z = [logits[(b, k, *voxel)].item() for k in range(logits.shape[1])]
            k = int(target[(b, 0, *voxel)])
            losses.append(weights[k] * (math.log(sum(math.exp(x) for x in z)) - z[k]))
        per_sample.append(losses)
    if average == "voxels":
        everything = sum(per_sample, [])
        return sum(everything) / len(everything)
    means = [sum(losses) / len(losses) for losses in per_sample if losses]
    return sum(means) / len(means)


def reference_dice_loss(probs, target, mask, batch_dice):
    """The equations, sample by sample and class by class."""
    groups = [range(len(probs))] if batch_dice else [[b] for b in range(len(probs))]
    losses = []
    for group in groups:
        for k in range(probs.shape[1]):
            pairs = [(probs[(b, k, *v)].item(), float(target[(b, k, *v)])) for b in group for v in voxels_of(mask, b)]
            if any(t for _, t in pairs):
                overlap, sizes = sum(p * t for p, t in pairs), sum(p + t for p, t in pairs)
                losses.append(1 - (2 * overlap + SMOOTH) / (sizes + SMOOTH))
    return sum(losses) / len(losses)


# ---- cross-entropy


def two_samples():
    """Sample 0: one labelled voxel with p = 1/2. Sample 1: three with p = 1/4. Two classes, axes 1 x 2 x 3."""
    logits = torch.zeros(2, 2, 1, 2, 3)
    logits[1, 1] = math.log(3)  # softmax (1/4, 3/4)
    mask = torch.zeros(2, 1, 1, 2, 3, dtype=torch.bool)
    mask[0, 0, 0, 1, 2] = True
    mask[1, 0, 0, 0, :] = True
    return logits, torch.where(mask, 0, GARBAGE), mask


def test_cross_entropy_by_hand_is_a_mean_within_each_sample_and_then_over_samples():
    assert masked_cross_entropy(*two_samples()).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


def test_cross_entropy_by_hand_over_all_labelled_voxels():
    expected = (math.log(2) + 3 * math.log(4)) / 4
    assert masked_cross_entropy(*two_samples(), average="voxels").item() == pytest.approx(expected, rel=1e-6)


def test_samples_without_labels_do_not_thin_out_the_mean():
    logits, target, mask = two_samples()
    more = torch.cat([logits, torch.randn(2, 2, 1, 2, 3)])
    nothing = torch.zeros_like(mask)
    loss = masked_cross_entropy(more, torch.cat([target, target]), torch.cat([mask, nothing]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("average", ["samples", "voxels"])
@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_equals_a_slow_reference(seed, average, balance):
    logits, target, mask = random_case(seed)
    target[:, :, :3] *= target[:, :, :3] == GARBAGE  # half of it background
    loss = masked_cross_entropy(logits, target, mask, average, class_balance=balance)
    assert loss.item() == pytest.approx(reference_cross_entropy(logits, target, mask, average, balance), rel=1e-5)


def nine_and_one():
    """Nine voxels of class 0 with p = 1/2, one of class 1 with p = 1/4, no voxel of class 2; more without label."""
    logits = torch.full((1, 3, 1, 2, 6), -100.0)
    logits[:, :2] = 0.0
    logits[0, 0, 0, 1, 5] = math.log(3)
    target = torch.zeros(1, 1, 1, 2, 6, dtype=torch.int16)
    target[0, 0, 0, 1, 5] = 1
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[0, 0, 0, 0, :2] = False
    return logits, torch.where(mask, target, 1), mask


@pytest.mark.parametrize(
    ("balance", "common", "rare"),
    [(0.0, 1, 1), (0.5, 10 / 4 / 3, 10 / 4), (1.0, 10 / 2 / 9, 10 / 2)],  # 10 labelled voxels; sqrt(9) + sqrt(1) = 4
)
def test_balanced_cross_entropy_by_hand_counts_only_what_is_labelled(balance, common, rare):
    expected = (9 * common * math.log(2) + rare * math.log(4)) / 10
    for average in ("samples", "voxels"):
        loss = masked_cross_entropy(*nine_and_one(), average, class_balance=balance)
        assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert 9 * common + rare == pytest.approx(10)


def test_classes_are_counted_beyond_what_single_precision_counts_to():
    """Ones that are added up as float32 stop at 2^24."""
    common, rare, seen = 2**24 + 4, 4, []
    logits = torch.zeros(1, 2, 1).expand(1, 2, common + rare)
    target = torch.zeros(1, 1, common + rare, dtype=torch.int8)
    target[..., :rare] = 1
    mask = torch.ones_like(target, dtype=torch.bool)
    masked_cross_entropy(logits, target, mask, class_balance=0.5, total=lambda counts: seen.append(counts) or counts)
    assert seen[0].tolist() == [common, rare]


@pytest.mark.parametrize("balance", [0.5, 1.0])
@pytest.mark.parametrize("average", ["samples", "voxels"])
def test_with_one_class_alone_balancing_changes_nothing(average, balance):
    logits, target, mask = random_case(0)
    target = torch.where(mask, 2, target)
    balanced = masked_cross_entropy(logits, target, mask, average, class_balance=balance)
    torch.testing.assert_close(balanced, masked_cross_entropy(logits, target, mask, average))


@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("average", ["samples", "voxels"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_empty_mask_gives_exactly_0_and_no_gradient(average, batch, balance):
    logits = torch.randn(batch, CLASSES, *SHAPE).requires_grad_()
    nothing = torch.zeros(batch, 1, *SHAPE, dtype=torch.bool)
    target = torch.full((batch, 1, *SHAPE), GARBAGE, dtype=torch.int16)
    loss = masked_cross_entropy(logits, target, nothing, average, class_balance=balance)
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == 0).all()


@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("garbage", [0, 3, GARBAGE, -1, -32768])
def test_targets_outside_the_mask_never_matter(garbage, balance):
    logits, target, mask = random_case(0)
    targets = (target, torch.where(mask, target, garbage))
    losses = [masked_cross_entropy(logits, t, mask, class_balance=balance) for t in targets]
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    assert torch.equal(losses[0], losses[1]) and torch.equal(gradients[0], gradients[1])


def test_gradient_is_0_outside_the_mask_and_not_inside():
    logits, target, mask = random_case(0)
    (gradient,) = torch.autograd.grad(masked_cross_entropy(logits, target, mask), logits)
    touched = (gradient != 0).any(1, keepdim=True)
    assert torch.equal(touched, mask)


@pytest.mark.parametrize("average", ["samples", "voxels"])
def test_a_sample_is_not_supervised_on_another_samples_planes(average):
    logits = torch.randn(2, CLASSES, *SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.zeros(2, 1, *SHAPE, dtype=torch.bool)
    mask[0, 0, 2], mask[1, 0, :, 3] = True, True
    loss = masked_cross_entropy(logits, torch.zeros(2, 1, *SHAPE, dtype=torch.int16), mask, average)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal((gradient != 0).any(1, keepdim=True), mask)


@pytest.mark.parametrize("shapes", [((3, 5, 6, 7), (3, 1, 5, 6, 7)), ((3, 1, 5, 6, 7), (1, 1, 5, 6, 7))])
def test_shapes_that_would_be_broadcast_over_samples_are_refused(shapes):
    target, mask = (torch.ones(shape, dtype=torch.int64) for shape in shapes)
    logits, probs = torch.zeros(3, CLASSES, *SHAPE), torch.zeros(3, 3, *SHAPE)
    with pytest.raises(ValueError, match="shape is"):
        masked_cross_entropy(logits, target, mask.bool())
    for loss in (masked_binary_cross_entropy, masked_dice_loss):
        with pytest.raises(ValueError, match="shape is"):
            loss(probs, probs > 0, torch.ones(3, 5, 6, 7, dtype=torch.bool))


@pytest.mark.parametrize("seed", range(3))
def test_average_over_voxels_equals_nnunets_cross_entropy_with_ignore_label(seed):
    logits, target, mask = random_case(seed)
    target = torch.where(mask, target, CLASSES)
    stock = RobustCrossEntropyLoss(ignore_index=CLASSES)(logits, target)
    torch.testing.assert_close(masked_cross_entropy(logits, target, mask, "voxels"), stock)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="'samples' and 'voxels'"):
        masked_cross_entropy(*random_case(0), average="batch")


def test_half_precision_logits_give_a_float32_loss():
    logits, target, mask = random_case(0)
    assert masked_cross_entropy(logits.half(), target, mask).dtype == torch.float32


# ---- binary cross-entropy


def test_binary_cross_entropy_by_hand():
    logits = torch.zeros(1, 2, 1, 2, 3)  # p = 1/2 for region 0
    logits[:, 1] = math.log(3)  # p = 3/4 for region 1
    target = torch.ones(1, 2, 1, 2, 3, dtype=torch.bool)
    mask = torch.zeros(1, 1, 1, 2, 3, dtype=torch.bool)
    mask[0, 0, 0, 1] = True
    expected = (math.log(2) + math.log(4 / 3)) / 2
    for average in ("samples", "voxels"):
        assert masked_binary_cross_entropy(logits, target, mask, average).item() == pytest.approx(expected, rel=1e-6)
    assert masked_binary_cross_entropy(logits, target, mask & False).item() == 0.0


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balanced_binary_cross_entropy_is_that_of_two_classes_in_each_region(balance, kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *SHAPE, generator=generator)
    shares = torch.tensor([0.02, 0.4, 0.9]).view(1, 3, 1, 1, 1)
    target = torch.rand(2, 3, *SHAPE, generator=generator) < shares
    mask = torch.rand(2, 1, *SHAPE, generator=generator) < 0.3
    for average in ("samples", "voxels"):
        each = []
        for r in range(3):
            two = torch.stack([torch.zeros_like(logits[:, r]), logits[:, r]], 1)  # softmax of (0, z) is the sigmoid
            each.append(masked_cross_entropy(two, target[:, r : r + 1], mask, average, class_balance=balance))
        loss = masked_binary_cross_entropy(logits, target.to(kind), mask, average, class_balance=balance)
        torch.testing.assert_close(loss, torch.stack(each).mean())
        assert masked_binary_cross_entropy(logits, target, mask & False, class_balance=balance).item() == 0.0


def test_binary_cross_entropy_does_not_look_outside_the_mask():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *SHAPE, generator=generator)
    target = torch.rand(2, 3, *SHAPE, generator=generator) < 0.5
    mask = torch.rand(2, 1, *SHAPE, generator=generator) < 0.3
    for balance in (0.0, 0.5):
        loss = masked_binary_cross_entropy(logits, target, mask, class_balance=balance)
        changed = torch.where(mask, logits, 50.0), target ^ ~mask, mask
        assert torch.equal(loss, masked_binary_cross_entropy(*changed, class_balance=balance))


# ---- Dice


def test_dice_by_hand():
    probs = torch.tensor([0.5, 0.5, 1.0, 0.0]).reshape(1, 1, 1, 2, 2)
    target = torch.tensor([1, 0, 1, 1]).reshape(1, 1, 1, 2, 2)
    mask = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 2, 2)
    # overlap 1.5, sizes 2 and 2: Dice 3/4
    assert masked_dice_loss(probs, target, mask).item() == pytest.approx(0.25, abs=1e-5)


def drawn_everywhere(seed):
    """Probabilities, one-hot foreground and mask in which every class is drawn in every sample."""
    logits, target, mask = random_case(seed, share=0.5)
    labels = torch.where(mask, target, 0)
    one_hot = one_hot_foreground(labels, CLASSES) & mask
    assert one_hot.flatten(2).any(2).all()
    return logits.softmax(1), labels, one_hot, mask


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dice_equals_nnunets_where_every_class_is_drawn_in_every_sample(seed, batch_dice):
    probs, labels, one_hot, mask = drawn_everywhere(seed)
    stock = MemoryEfficientSoftDiceLoss(batch_dice=batch_dice, do_bg=False, smooth=SMOOTH, ddp=False)
    expected = 1 + stock(probs, labels, loss_mask=mask)
    torch.testing.assert_close(masked_dice_loss(probs[:, 1:], one_hot, mask, batch_dice), expected)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dice_equals_a_slow_reference_also_where_classes_are_absent(seed, batch_dice):
    logits, target, mask = random_case(seed, share=0.02)
    probs, one_hot = logits.softmax(1)[:, 1:], one_hot_foreground(target, CLASSES)
    assert not (one_hot & mask).flatten(2).any(2).all(), "this case would not show it"
    expected = reference_dice_loss(probs, one_hot, mask, batch_dice)
    assert masked_dice_loss(probs, one_hot, mask, batch_dice).item() == pytest.approx(expected, abs=1e-5)


def test_classes_absent_among_a_samples_labelled_voxels_contribute_nothing_to_its_dice():
    probs, _, one_hot, mask = drawn_everywhere(0)
    one_hot[1, 2] = False
    probs = probs[:, 1:].detach().requires_grad_()
    loss = masked_dice_loss(probs, one_hot, mask)
    (gradient,) = torch.autograd.grad(loss, probs)
    counted = (gradient != 0).flatten(2).any(2)
    assert counted.tolist() == [[True, True, True], [True, True, False], [True, True, True]]
    pairs = [(slice(b, b + 1), slice(k, k + 1)) for b, k in counted.nonzero().tolist()]
    alone = [masked_dice_loss(probs[pair], one_hot[pair], mask[pair[0]]) for pair in pairs]
    torch.testing.assert_close(loss, torch.stack(alone).mean())


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("batch", [0, 2])
def test_dice_of_nothing_drawn_is_exactly_0_without_gradient(batch, batch_dice):
    probs = torch.rand(batch, 3, *SHAPE).requires_grad_()
    for mask_value, target_value in ((False, True), (True, False)):
        mask = torch.full((batch, 1, *SHAPE), mask_value)
        loss = masked_dice_loss(probs, torch.full((batch, 3, *SHAPE), target_value), mask, batch_dice)
        assert loss.item() == 0.0
        assert (torch.autograd.grad(loss, probs)[0] == 0).all()


def test_our_terms_are_nnunets_loss_where_everything_is_drawn():
    probs, labels, _, _ = drawn_everywhere(1)
    logits = probs.log()
    everything = torch.ones_like(labels, dtype=torch.bool)
    one_hot = one_hot_foreground(labels, CLASSES)
    dice = {"batch_dice": False, "smooth": SMOOTH, "do_bg": False, "ddp": False}
    stock = DC_and_CE_loss(dice, {}, ignore_label=CLASSES, dice_class=MemoryEfficientSoftDiceLoss)(logits, labels)
    ours = masked_cross_entropy(logits, labels, everything, "voxels")
    ours = ours + masked_dice_loss(logits.softmax(1)[:, 1:], one_hot, everything) - 1
    torch.testing.assert_close(ours, stock)


# ---- small parts


def test_one_hot_leaves_out_background_and_what_is_no_class():
    labels = torch.tensor([0, 1, 2, 3, GARBAGE, -1], dtype=torch.int16).reshape(1, 1, 1, 2, 3)
    one_hot = one_hot_foreground(labels, num_classes=3)
    assert one_hot.shape == (1, 2, 1, 2, 3)
    assert one_hot.flatten(2).int().tolist() == [[[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]]


def test_mean_squared_difference_by_hand_and_0_for_nothing():
    assert mean_squared_difference(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 2.5
    nothing = torch.zeros(0, 2, *SHAPE, requires_grad=True)
    loss = mean_squared_difference(nothing, torch.zeros(0, 2, *SHAPE))
    assert loss.item() == 0.0 and loss.requires_grad


def test_clipped_logits_by_hand():
    logits = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).reshape(3, 2, 1)
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]).reshape(3, 2, 1)
    torch.testing.assert_close(clip_logits(logits), expected)
    torch.testing.assert_close(clip_logits(logits, max_norm=5.0), logits)


def test_clipped_logits_keep_their_argmax_and_have_at_most_the_norm():
    logits, _, _ = random_case(0)
    clipped = clip_logits(logits, 0.5)
    assert torch.equal(clipped.argmax(1), logits.argmax(1))
    norms = clipped.norm(dim=1)
    assert norms.max() <= 0.5 + 1e-6 and (norms > 0.5 - 1e-6).any()


def test_clipping_zero_logits_has_a_finite_gradient():
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    clip_logits(logits).sum().backward()
    assert torch.equal(logits.grad, torch.ones_like(logits))


def test_weighted_sum_by_hand():
    terms = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0)}
    total = weighted_sum(terms, {"b": 10.0, "a": 0.5})
    assert total.item() == 31.0
    assert torch.autograd.grad(total, terms["a"])[0].item() == 0.5


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "B": 1.0}])
def test_weighted_sum_refuses_terms_without_weight_and_weights_without_term(weights):
    with pytest.raises(ValueError, match="differ"):
        weighted_sum({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, weights)
