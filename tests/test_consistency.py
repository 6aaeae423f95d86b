"""The student follows the teacher, and the teacher follows nobody here."""

import math

import pytest
import torch

from nnunet_gmabs.learning.consistency import confident_consistency, probability_consistency, to_probs
from nnunet_gmabs.learning.losses import (
    masked_binary_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    one_hot_foreground,
)

SHAPE = (5, 6, 7)
CLASSES = 3


def views(seed, batch=2, channels=CLASSES, regions=False):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, batch, channels, *SHAPE, generator=generator)
    return logits[0].requires_grad_(), [to_probs(x, regions).requires_grad_() for x in logits[1:]]


def reference_mse(logits, teacher_probs, regions):
    """Every entry of every view, one by one."""
    total, count = 0.0, 0
    for view in teacher_probs:
        for b, *voxel in torch.ones(len(logits), *SHAPE).nonzero().tolist():
            z = [logits[(b, k, *voxel)].item() for k in range(logits.shape[1])]
            exp = [math.exp(x) for x in z]
            p = [1 / (1 + math.exp(-x)) for x in z] if regions else [e / sum(exp) for e in exp]
            total += sum((p[k] - view[(b, k, *voxel)].item()) ** 2 for k in range(len(z)))
            count += len(z)
    return total / count


def test_to_probs_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).half()
    assert to_probs(logits, regions=False).flatten().tolist() == pytest.approx([0.25, 0.75], abs=1e-3)
    assert to_probs(logits, regions=True).flatten().tolist() == pytest.approx([0.5, 0.75], abs=1e-3)
    assert to_probs(logits, regions=False).dtype == torch.float32


@pytest.mark.parametrize("regions", [False, True])
def test_probability_consistency_equals_a_slow_reference(regions):
    logits, teacher = views(0, regions=regions)
    loss = probability_consistency(logits, teacher, regions)
    assert loss.item() == pytest.approx(reference_mse(logits, teacher, regions), rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_no_gradient_reaches_the_teachers_probabilities(regions):
    logits, teacher = views(0, regions=regions)
    for loss in (
        probability_consistency(logits, teacher, regions),
        confident_consistency(logits, teacher, 0.5, regions)[0],
    ):
        gradients = torch.autograd.grad(loss, [logits, *teacher], allow_unused=True)
        assert gradients[0].any() and gradients[1] is None and gradients[2] is None


@pytest.mark.parametrize("regions", [False, True])
def test_an_empty_batch_gives_0_in_the_graph(regions):
    logits, teacher = views(0, batch=0, regions=regions)
    confident, share = confident_consistency(logits, teacher, 0.5, regions)
    for loss in (probability_consistency(logits, teacher, regions), confident):
        assert loss.item() == 0.0 and loss.requires_grad
    assert share.item() == 0.0


@pytest.mark.parametrize("regions", [False, True])
def test_where_the_teacher_is_sure_of_nothing_the_loss_is_0_not_nan(regions):
    logits, teacher = views(0, regions=regions)
    loss, share = confident_consistency(logits, teacher, 1.0, regions)
    assert loss.item() == 0.0 and share.item() == 0.0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_exactly_the_threshold_is_not_sure_enough():
    teacher = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).reshape(1, 2, 1, 1, 2)  # one voxel at 0.75, one at 0.5
    for confidence, share in ((0.75, 0.0), (0.7499, 0.5)):
        assert confident_consistency(torch.zeros_like(teacher), [teacher, teacher], confidence)[1].item() == share


def test_sureness_is_that_of_the_mean_of_the_views():
    sure_of_0 = torch.tensor([0.9, 0.1]).reshape(1, 2, 1, 1)
    sure_of_1 = sure_of_0.flip(1)
    logits = torch.zeros(1, 2, 1, 1)
    assert confident_consistency(logits, [sure_of_0, sure_of_0], 0.8)[1].item() == 1.0
    assert confident_consistency(logits, [sure_of_0, sure_of_1], 0.8)[1].item() == 0.0


def test_confident_consistency_is_dice_and_cross_entropy_on_the_teachers_labels():
    logits, teacher = views(1)
    probs = (teacher[0] + teacher[1]).detach() / 2
    best, labels = probs.max(1, keepdim=True)
    kept = best > 0.7
    assert 0.1 < kept.float().mean() < 0.9
    expected = masked_cross_entropy(logits, labels, kept, "voxels")
    one_hot = one_hot_foreground(labels, CLASSES)
    expected = expected + masked_dice_loss(logits.softmax(1)[:, 1:], one_hot, kept, batch_dice=True)
    loss, share = confident_consistency(logits, teacher, 0.7)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(share, kept.float().mean())


def test_confident_consistency_of_regions_needs_all_regions_sure():
    logits, teacher = views(1, channels=2, regions=True)
    probs = (teacher[0] + teacher[1]).detach() / 2
    kept = ((probs > 0.7) | (probs < 0.3)).all(1, keepdim=True)
    assert 0.05 < kept.float().mean() < 0.9
    expected = masked_binary_cross_entropy(logits, probs > 0.5, kept, "voxels")
    expected = expected + masked_dice_loss(logits.sigmoid(), probs > 0.5, kept, batch_dice=True)
    loss, share = confident_consistency(logits, teacher, 0.7, regions=True)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(share, kept.float().mean())


def test_a_student_that_agrees_has_almost_no_loss_and_one_that_disagrees_has():
    labels = torch.randint(0, CLASSES, (2, *SHAPE), generator=torch.Generator().manual_seed(0))
    teacher = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    agrees, _ = confident_consistency(20 * teacher, [teacher, teacher], 0.8)
    disagrees, _ = confident_consistency(20 * teacher.roll(1, 1), [teacher, teacher], 0.8)
    assert agrees.item() < 1e-4 and disagrees.item() > 10


@pytest.mark.parametrize("regions", [False, True])
def test_where_the_student_saw_another_sample_it_learns_nothing(regions):
    logits, teacher = views(3, regions=regions)
    own = torch.zeros(2, 1, *SHAPE, dtype=torch.bool)
    own[0, :, :2] = True
    loss, share = confident_consistency(logits, teacher, 0.2, regions, own=own)
    loss.backward()
    given = logits.grad.abs().sum(1, keepdim=True) > 0
    assert given.any() and not given[~own].any() and share == pytest.approx(float(own.float().mean()))
    everywhere, _ = confident_consistency(logits, teacher, 0.2, regions, own=torch.ones_like(own))
    assert torch.equal(everywhere, confident_consistency(logits, teacher, 0.2, regions)[0])
