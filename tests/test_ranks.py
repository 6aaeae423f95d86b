"""Sums over processes: losses and gradients of a batch that is shared out are those of the whole batch."""

import itertools

import pytest
import torch
from processes import in_processes
from torch import nn

from nnunet_gmabs.learning.consistency import confident_consistency, probability_consistency
from nnunet_gmabs.learning.gradients import gradient_norms
from nnunet_gmabs.learning.losses import alone
from nnunet_gmabs.learning.mutual import PseudoLabels, mutual_loss
from nnunet_gmabs.learning.noise_tolerant import noise_tolerant_loss
from nnunet_gmabs.learning.supervised import SupervisedLoss
from nnunet_gmabs.trainers import ranks as ranks_module
from nnunet_gmabs.trainers.ranks import Ranks, checksum

IGNORE, CLASSES, SHAPE = 3, 3, (5, 6, 7)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}  # float32 sums in another order
BATCHES = {
    "both ranks have labelled voxels": [0.3, 0.1, 0.8, 0.5],
    "rank 1 has none": [0.3, 0.0, 0.2, 0.0],  # samples 1 and 3 are rank 1's
    "no rank has any": [0.0, 0.0, 0.0, 0.0],
    "an odd batch": [0.3, 0.1, 0.0, 0.2, 0.9],
    "rank 1 has no sample": [0.4],
}
NUMBERED = torch.arange(120.0).reshape(2, 5, 2, 3, 2)
SUPERVISED = [*itertools.product((False, True), (False, True), ("voxels", "samples"))]


def batch(shares):
    """Images, targets of which a share is labelled, probabilities of a teacher."""
    g = torch.Generator().manual_seed(len(shares))
    images = torch.randn(len(shares), 2, *SHAPE, generator=g)
    labels = torch.randint(0, CLASSES, (len(shares), 1, *SHAPE), generator=g)
    drawn = torch.rand(labels.shape, generator=g) < torch.tensor(shares).view(-1, 1, 1, 1, 1)
    teacher = torch.softmax(3 * torch.randn(len(shares), CLASSES, *SHAPE, generator=g), 1)
    return images, torch.where(drawn, labels, IGNORE), teacher


def losses(total):
    """Every loss of the package, by name: (logits, target, teacher) -> scalar."""

    def supervised(regions, batch_dice, average):
        loss = SupervisedLoss(IGNORE, regions, batch_dice, 1.0, 1.0, average, total)
        loss.class_balance = 0.5

        def of(logits, target, teacher):
            if regions:  # two regions and the unknown
                target = torch.cat([target == 1, (target > 0) & (target < IGNORE), target == IGNORE], 1)
                logits = logits[:, :2]
            return loss(logits, target)

        return of

    named = {f"supervised {options}": supervised(*options) for options in SUPERVISED}
    named["confident"] = lambda z, _, p: confident_consistency(z, [p], 0.6, total=total)[0]
    named["confident, regions"] = lambda z, _, p: confident_consistency(z, [p], 0.6, regions=True, total=total)[0]
    named["mse"] = lambda z, _, p: probability_consistency(z, [p, p], total=total)
    for name, balanced in (("mutual", False), ("mutual, balanced", True)):
        named[name] = lambda z, _, p, balanced=balanced: mutual_loss(
            z, PseudoLabels(p.argmax(1, True), p.amax(1, True) > 0.7), 1.0, balanced, total
        )
    named["pseudo"] = lambda z, y, _: noise_tolerant_loss(z, y, y, IGNORE, "pseudo", 0.8, 1.0, total)[0]
    return named


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, CLASSES, 1))


def outcome(shares, ranks):
    """Name of a loss -> (its value, its summed gradients, its gradient's norm as the log has it), on this rank."""
    images, target, teacher = (x[ranks.part] for x in batch(shares))
    results = {}
    for name, loss in losses(ranks.total).items():
        net = network()
        logits = net(images) if len(images) else torch.zeros(0, CLASSES, *SHAPE, requires_grad=True)
        value = loss(logits, target, teacher)
        parameters = list(net.parameters())
        norm = gradient_norms({"term": value}, parameters, 1.0, ranks.total)["term"]
        value.backward()
        ranks.sum_gradients(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        results[name] = (float(value.detach()), [g.numpy() for g in gradients], norm)
    return results


def summed_gradients(ranks):
    """Of three parameters of which ranks 0 and 1, rank 1 and nobody have a gradient."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 10.0 + ranks.rank])
    if ranks.rank == 1:
        parameters[1].grad = torch.tensor([3.0, 4.0])
    ranks.sum_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def summed_layouts(ranks):
    """0 to 119 summed over ranks, of which rank 1 has them with channels last in memory."""
    layout = torch.channels_last_3d if ranks.rank else torch.contiguous_format
    return ranks.total(NUMBERED.contiguous(memory_format=layout)).tolist()


def everything():
    """What is asked of two processes, all at once: starting them costs seconds."""
    ranks = Ranks()
    found = {name: outcome(shares, ranks) for name, shares in BATCHES.items()}
    found["gathered"] = ranks.gather({"rank": ranks.rank})
    found["summed"] = summed_gradients(ranks)
    found["layouts"] = summed_layouts(ranks)
    found["of writer"] = ranks.of_writer(f"rank {ranks.rank}")
    found["errors"] = ranks.errors(lambda: 1 // ranks.rank, ZeroDivisionError)
    same, other = network(), network()
    ranks.require_equal({"student": same})
    with torch.no_grad():
        other[2].bias[1] += 1e-7 * ranks.rank
    try:
        ranks.require_equal({"student": same, "teacher": other})
        found["unequal"] = None
    except RuntimeError as error:
        found["unequal"] = str(error)
    return found


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    return in_processes(2, tmp_path_factory.mktemp("two"), everything)


@pytest.mark.parametrize("name", BATCHES)
def test_every_loss_and_its_gradient_are_those_of_the_whole_batch(name, of_two):
    expected = outcome(BATCHES[name], Ranks())
    for of_rank in of_two:
        for loss, (value, gradients, norm) in of_rank[name].items():
            wanted_value, wanted_gradients, wanted_norm = expected[loss]
            torch.testing.assert_close(value, wanted_value, msg=loss, **TOLERANCE)
            torch.testing.assert_close(norm, wanted_norm, msg=loss, **TOLERANCE)
            for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
                torch.testing.assert_close(torch.tensor(gradient), torch.tensor(wanted), msg=loss, **TOLERANCE)


@pytest.mark.parametrize("name", losses(alone))
def test_the_batches_tell_right_from_the_mean_of_the_ranks_own_losses(name):
    differences = []
    for shares in BATCHES.values():
        images, target, teacher = batch(shares)
        wanted = float(losses(alone)[name](network()(images), target, teacher).detach())
        if len(images) > 1:
            parts = [(network()(images[r::2]), target[r::2], teacher[r::2]) for r in range(2)]
            mean = sum(float(losses(alone)[name](*part).detach()) for part in parts) / 2
            differences.append(abs(mean - wanted) / max(wanted, 1e-3))
    assert max(differences) > 10 * TOLERANCE["rtol"]


def test_both_ranks_have_bit_for_bit_the_same_losses_and_gradients(of_two):
    for name in BATCHES:
        for loss, (value, gradients, _) in of_two[0][name].items():
            other_value, other_gradients, _ = of_two[1][name][loss]
            assert value == other_value
            assert all((a == b).all() for a, b in zip(gradients, other_gradients, strict=True))


def test_a_gradient_that_some_rank_has_is_summed_and_one_that_nobody_has_stays_away(of_two):
    for of_rank in of_two:
        assert of_rank["summed"] == [[2.0, 21.0], [3.0, 4.0], None]


def test_objects_and_errors_reach_everyone(of_two):
    for of_rank in of_two:
        assert of_rank["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert of_rank["of writer"] == "rank 0"
        assert of_rank["errors"] == ["integer division or modulo by zero"]


def test_a_network_that_differs_in_one_bit_is_named_on_all_ranks(of_two):
    for of_rank in of_two:
        assert of_rank["unequal"].startswith("the teacher of rank 1 differs from that of rank 0, and must not")


def test_a_checksum_sees_weights_swapped():
    one, other = network(), network()
    with torch.no_grad():
        other[2].bias.copy_(one[2].bias.flip(0))
    assert checksum(one) == checksum(network()) and checksum(one) != checksum(other)


def test_gradients_are_summed_in_groups_of_one_type(monkeypatch):
    monkeypatch.setattr(ranks_module, "BUCKET", 10)
    tensors = [torch.zeros(4), torch.zeros(8), torch.zeros(3, dtype=torch.float16), torch.zeros(2)]
    assert [[t.numel() for t in bucket] for bucket in ranks_module._buckets(tensors)] == [[4, 8], [2], [3]]


def test_alone_nothing_is_summed_and_nobody_waited_for():
    ranks = Ranks()
    assert (ranks.rank, ranks.number, ranks.writes, ranks.total) == (0, 1, True, alone)
    ranks.wait()
    assert ranks.gather(3) == [3] and ranks.of_writer(3) == 3 and list(range(3))[ranks.part] == [0, 1, 2]


def test_tensors_are_summed_by_place_whatever_their_layout_in_memory(of_two):
    assert [of_rank["layouts"] for of_rank in of_two] == [(2 * NUMBERED).tolist()] * 2
