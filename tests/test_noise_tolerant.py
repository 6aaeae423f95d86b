"""Denoised pseudo labels and clipped logits."""

import math

import pytest
import torch

from nnunet_gmabs.learning.losses import clip_logits
from nnunet_gmabs.learning.noise_tolerant import denoise, max_norm_for_classes, noise_tolerant_loss
from nnunet_gmabs.presets import GM_ABS_PAPER

IGNORE = 3
SHAPE = (2, 1, 5, 6, 7)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 5, 6, 7, generator=generator)
    pseudo = torch.where(
        torch.rand(SHAPE, generator=generator) < 0.7,
        logits.argmax(1, keepdim=True),
        torch.randint(0, 4, SHAPE, generator=generator),
    )
    expert = torch.full(SHAPE, IGNORE)
    expert[0, 0, 2] = pseudo[0, 0, 2] % IGNORE
    pseudo[0, 0, 2] = expert[0, 0, 2]
    return logits.requires_grad_(), pseudo, expert


@pytest.mark.parametrize("classes", [2, 3, 8, 15])
@pytest.mark.parametrize("prob", [0.7, 0.8, 0.95])
def test_the_norm_reaches_exactly_that_probability(classes, prob):
    best = torch.full((1, classes, 1), -1e3 / (classes - 1), dtype=torch.float64)
    best[0, 0] = 1e3
    norm = max_norm_for_classes(classes, prob)
    reached = torch.softmax(clip_logits(best, norm), 1)[0, 0]
    assert float(reached) == pytest.approx(prob, rel=1e-9)
    others = 1e3 * torch.randn(1, classes, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(torch.softmax(clip_logits(others, norm), 1).max()) <= prob + 1e-9


def test_the_papers_preset_has_norm_1_for_its_two_classes():
    assert max_norm_for_classes(2, GM_ABS_PAPER.noise_tolerant.reachable_prob) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("classes", "prob"), [(2, 0.5), (3, 1 / 3), (2, 1.0), (1, 0.8)])
def test_a_probability_that_makes_no_sense_is_named(classes, prob):
    with pytest.raises(ValueError, match=f"reachable_prob is {prob}; with {classes} classes"):
        max_norm_for_classes(classes, prob)


def test_doubtful_voxels_by_hand():
    pseudo, student = torch.tensor([0, 1, 2, IGNORE]), torch.tensor([1, 1, 0, 2])
    doubtful = torch.tensor([True, False, True, False])
    assert denoise(pseudo, student, doubtful, IGNORE, "student").tolist() == [1, 1, 0, IGNORE]
    assert denoise(pseudo, student, doubtful, IGNORE, "ignore").tolist() == [IGNORE, 1, IGNORE, IGNORE]
    with pytest.raises(ValueError, match="doubtful_as is 'flip'"):
        denoise(pseudo, student, doubtful, IGNORE, "flip")


def test_without_denoising_and_clipping_it_is_a_cross_entropy_of_known_voxels(batch):
    logits, pseudo, expert = batch
    loss, shares = noise_tolerant_loss(logits, pseudo, expert, IGNORE, "pseudo", None)
    expected = torch.nn.functional.cross_entropy(logits, pseudo[:, 0], ignore_index=IGNORE)
    torch.testing.assert_close(loss, expected)
    assert shares == {}


def test_what_an_expert_drew_is_never_doubted(batch):
    logits, pseudo, expert = batch
    wrong = (logits.detach().argmax(1, keepdim=True) + 1) % IGNORE
    expert[1] = wrong[1]
    pseudo = torch.where(expert != IGNORE, expert, pseudo)
    loss, _ = noise_tolerant_loss(logits, pseudo, expert, IGNORE, "student", None)
    losses = -torch.log_softmax(logits, 1).gather(1, torch.where(pseudo == IGNORE, 0, pseudo))
    everything_denoised = losses.detach()[1].sum() / (pseudo != IGNORE).sum()
    assert loss > everything_denoised > 0  # the whole wrong plane counts, as drawn


@pytest.mark.parametrize("doubtful_as", ["student", "ignore", "pseudo"])
def test_what_an_expert_drew_since_the_round_counts_as_drawn(batch, doubtful_as):
    logits, pseudo, expert = batch
    expert[1, 0, :, 3] = (pseudo[1, 0, :, 3] + 1) % IGNORE
    unknown, contradicted = pseudo == IGNORE, (expert != IGNORE) & (expert != pseudo)
    told = torch.where(contradicted & ~unknown, expert, pseudo)
    loss, shares = noise_tolerant_loss(logits, pseudo, expert, IGNORE, doubtful_as, 0.8, dice_weight=1.0)
    expected, expected_shares = noise_tolerant_loss(logits, told, expert, IGNORE, doubtful_as, 0.8, dice_weight=1.0)
    assert (contradicted & ~unknown).sum() > 10
    assert loss == expected and shares == expected_shares


def contradicted():
    """Logits of a student that is sure, and pseudo labels in which it sees eight voxels otherwise."""
    truth = torch.zeros(1, 1, 40, 50, dtype=torch.long)
    truth[..., 25:] = 1
    logits = 4 * torch.stack([1 - truth[:, 0], truth[:, 0]], 1).float()
    logits += 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    truth[0, 0, :4, 25:27] = 0
    return logits, truth


def test_doubt_falls_on_labels_that_the_student_contradicts():
    logits, pseudo = contradicted()
    nothing = torch.full_like(pseudo, 2)
    noisy, shares = noise_tolerant_loss(logits, pseudo, nothing, 2, "pseudo", None)
    denoised, shares = noise_tolerant_loss(logits, pseudo, nothing, 2, "student", None)
    left_out, _ = noise_tolerant_loss(logits, pseudo, nothing, 2, "ignore", None)
    assert 0 < float(shares["doubtful"]) <= 8 / 2000  # some of the eight, and nothing else
    assert noisy > denoised + 0.005 and noisy > left_out + 0.005
    assert float(shares["doubted_expert"]) == 0


def test_doubt_of_expert_voxels_is_counted_and_has_no_effect():
    logits, pseudo = contradicted()
    expert = torch.full_like(pseudo, 2)
    expert[0, 0, :4, 20:45] = pseudo[0, 0, :4, 20:45]  # 100 voxels, the eight among them
    loss, shares = noise_tolerant_loss(logits, pseudo, expert, 2, "student", None)
    noisy, _ = noise_tolerant_loss(logits, pseudo, expert, 2, "pseudo", None)
    assert 0 < float(shares["doubted_expert"]) <= 8 / 100 and float(shares["doubtful"]) == 0
    assert loss == noisy


def test_padding_is_no_voxel_that_an_expert_drew():
    logits, pseudo = contradicted()
    expert = torch.full_like(pseudo, 2)
    expert[0, 0, :4, 20:45] = pseudo[0, 0, :4, 20:45]
    _, shares = noise_tolerant_loss(logits, pseudo, expert, 2, "student", None)
    pseudo[0, 0, -4:] = 2  # padding: background to the expert, nothing to the generalist
    _, without = noise_tolerant_loss(logits, pseudo, expert, 2, "student", None)
    expert[0, 0, -4:] = 0
    _, padded = noise_tolerant_loss(logits, pseudo, expert, 2, "student", None)
    assert float(shares["doubted_expert"]) > 0
    assert padded == without


def test_nothing_known_gives_zero_in_the_graph(batch):
    logits, pseudo, expert = batch
    nothing = torch.full_like(pseudo, IGNORE)
    loss, shares = noise_tolerant_loss(logits, nothing, nothing, IGNORE)
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0
    assert float(shares["doubtful"]) == 0


def test_clipping_bounds_the_loss_of_a_wrong_label():
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 50.0
    pseudo = torch.ones(1, 1, 4, 4, dtype=torch.long)
    loss, _ = noise_tolerant_loss(logits, pseudo, torch.full_like(pseudo, 2), 2, "pseudo", 0.8)
    # (50, 0) is clipped to (norm, 0): less spread than the best direction has
    norm = max_norm_for_classes(2, 0.8)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(norm)), rel=1e-6)


def test_the_dice_term_is_that_of_the_denoised_labels(batch):
    from nnunet_gmabs.learning.losses import masked_dice_loss, one_hot_foreground

    logits, pseudo, expert = batch
    without, _ = noise_tolerant_loss(logits, pseudo, expert, IGNORE, "pseudo", 0.8)
    with_dice, _ = noise_tolerant_loss(logits, pseudo, expert, IGNORE, "pseudo", 0.8, dice_weight=0.5)
    probs, known = torch.softmax(logits, 1)[:, 1:], pseudo != IGNORE
    expected = without + 0.5 * masked_dice_loss(probs, one_hot_foreground(pseudo, 3), known, batch_dice=True)
    torch.testing.assert_close(with_dice, expected)
