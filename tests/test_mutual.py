"""Mutual teaching: labels, thresholds, losses."""

import math

import pytest
import torch

from nnunet_gmabs.learning.losses import masked_dice_loss, one_hot_foreground
from nnunet_gmabs.learning.mutual import PseudoLabels, kept_shares, mutual_loss, pseudo_labels
from nnunet_gmabs.learning.schedules import confidence_threshold

SHAPE = (2, 3, 5, 6, 7)


def logits(seed, shape=SHAPE):
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def reference_cross_entropy(z, taught):
    """Voxel by voxel, from the equation."""
    total, count = 0.0, 0
    for b, _, *v in taught.kept.nonzero().tolist():
        voxel = [z[(b, k, *v)].item() for k in range(z.shape[1])]
        total -= voxel[taught.labels[(b, 0, *v)].item()] - math.log(sum(math.exp(x) for x in voxel))
        count += 1
    return total / count


def test_labels_are_the_argmax_and_kept_where_the_network_is_surer_than_tau():
    probs = torch.tensor([[0.96, 0.02, 0.02], [0.1, 0.6, 0.3], [0.04, 0.0, 0.96]]).T.reshape(1, 3, 1, 3)
    taught = pseudo_labels(probs.log(), 0.95)
    assert taught.labels.tolist() == [[[[0, 1, 2]]]]
    assert taught.kept.tolist() == [[[[True, False, True]]]]


def test_exactly_tau_is_not_sure_enough():
    even = torch.zeros(1, 2, 2, 2)
    assert not pseudo_labels(even, 0.5).kept.any()
    assert pseudo_labels(even, 0.4999).kept.all()


def test_half_precision_is_judged_in_full():
    taught = pseudo_labels(torch.tensor([3.0, 0.0]).half().reshape(1, 2, 1, 1), 0.9525)  # sigmoid(3) = 0.95257
    assert taught.kept.all()


@pytest.mark.parametrize(("progress", "tau"), [(-1, 0.75), (0, 0.75), (0.5, 0.85), (1, 0.95), (2, 0.95)])
def test_the_threshold_rises_linearly(progress, tau):
    assert confidence_threshold(progress, 0.75, 0.95) == pytest.approx(tau)
    assert confidence_threshold(progress, 0.95, 0.95) == 0.95


def test_the_loss_equals_a_slow_reference():
    taught = pseudo_labels(logits(1), 0.9)
    assert 0.1 < taught.kept.float().mean() < 0.9
    assert mutual_loss(logits(0), taught).item() == pytest.approx(reference_cross_entropy(logits(0), taught), rel=1e-5)


def test_dice_comes_on_top():
    z, taught = logits(0), pseudo_labels(logits(1), 0.9)
    dice = masked_dice_loss(z.softmax(1)[:, 1:], one_hot_foreground(taught.labels, 3), taught.kept, batch_dice=True)
    torch.testing.assert_close(mutual_loss(z, taught, 0.5), mutual_loss(z, taught) + 0.5 * dice)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("dice_weight", [0.0, 1.0])
def test_nothing_kept_and_an_empty_batch_give_0_in_the_graph(dice_weight, balanced):
    for z, taught in ((logits(0), pseudo_labels(logits(1), 1.0)), (logits(0)[:0], pseudo_labels(logits(1)[:0], 0.5))):
        loss = mutual_loss(z, taught, dice_weight, balanced)
        assert loss.item() == 0.0 and loss.requires_grad


def test_no_gradient_reaches_the_teaching_network():
    learner, teacher = logits(0), logits(1)
    loss = mutual_loss(learner, pseudo_labels(teacher, 0.5), 1.0)
    gradients = torch.autograd.grad(loss, [learner, teacher], allow_unused=True)
    assert gradients[0].any() and gradients[1] is None


def test_voxels_that_are_not_kept_do_not_count():
    z, taught = logits(0), pseudo_labels(logits(1), 0.9)
    other = torch.where(taught.kept, taught.labels, (taught.labels + 1) % 3)
    assert mutual_loss(z, PseudoLabels(other, taught.kept), 1.0).item() == mutual_loss(z, taught, 1.0).item()


def test_balanced_classes_count_by_what_is_seen_of_them():
    surer_of_0 = torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    z, taught = logits(0), pseudo_labels(logits(1) + surer_of_0, 0.9)
    means, seen = [], []
    for k in range(3):
        of_class = taught.labels == k
        means.append(reference_cross_entropy(z, PseudoLabels(taught.labels, taught.kept & of_class)))
        seen.append(int(of_class.sum()))
    expected = sum(n * m for n, m in zip(seen, means, strict=True)) / sum(seen)
    assert mutual_loss(z, taught, balanced=True).item() == pytest.approx(expected, rel=1e-5)
    assert mutual_loss(z, taught).item() != pytest.approx(expected, rel=1e-2)
    alone = PseudoLabels(taught.labels, taught.kept & (taught.labels == 1))  # the others are kept nowhere
    torch.testing.assert_close(mutual_loss(z, alone, balanced=True), mutual_loss(z, alone))


def test_shares_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1]).reshape(1, 1, 2, 3)
    kept = torch.tensor([True, True, True, False, False, True]).reshape(1, 1, 2, 3)
    shares = kept_shares(PseudoLabels(labels, kept), 3)
    assert shares[:2] == [0.75, 0.5] and math.isnan(shares[2])
