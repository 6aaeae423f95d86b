"""Perturbed features: the clean ones stay, the perturbed ones stay in their graph."""

import pytest
import torch

from nnunet_gmabs.learning.feature_perturbation import apply_feature_perturbation, draw_feature_perturbations

KINDS = ["dropout", "noise", "statistics"]
SHAPES = [(2, 4, 5, 6, 7), (2, 8, 3, 4, 5)]


def features(shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def draw(clean, kinds, seed=1, dropout=0.5, noise=0.3):
    generators = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    return draw_feature_perturbations(clean, kinds, dropout, noise, *generators)


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_features_are_untouched_and_get_gradients(kind):
    clean = features()
    before = [f.detach().clone() for f in clean]
    perturbed = [apply_feature_perturbation(f, d) for f, d in zip(clean, draw(clean, [kind]), strict=True)]
    assert all(not torch.equal(p, f) for p, f in zip(perturbed, clean, strict=True))
    sum(p.pow(2).sum() for p in perturbed).backward()
    assert all(torch.equal(f.detach(), b) and f.grad.any() for f, b in zip(clean, before, strict=True))


def test_dropout_drops_whole_channels_and_keeps_the_sum_of_weights():
    clean = [torch.ones(50, 8, 2, 3)]
    factors = apply_feature_perturbation(clean[0], draw(clean, ["dropout"])[0])
    assert torch.equal(factors, factors[:, :, :1, :1].expand_as(factors))
    torch.testing.assert_close(factors[:, :, 0, 0].sum(1), torch.full((50,), 8.0))
    assert (factors == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_a_single_channel_is_never_dropped():
    clean = [torch.ones(50, 1, 2, 3)]
    assert torch.equal(apply_feature_perturbation(clean[0], draw(clean, ["dropout"])[0]), clean[0])
    assert torch.equal(apply_feature_perturbation(clean[0], draw(clean, ["dropout"], dropout=1.0)[0]), clean[0])


def test_noise_multiplies_every_value_within_its_limit():
    clean = [torch.ones(2, 4, 20, 21)]
    values = apply_feature_perturbation(clean[0], draw(clean, ["noise"])[0])
    assert 0.7 <= values.min() < 0.71 and 1.29 < values.max() <= 1.3
    assert values.mean().item() == pytest.approx(1.0, abs=0.01)
    assert len(values.unique()) > 1000


def test_statistics_lie_between_those_of_the_two_samples():
    clean = features()[:1]
    drawn = draw(clean, ["statistics"])[0]
    mixed = apply_feature_perturbation(clean[0], drawn)
    own = drawn.values.flatten()
    for statistic in (lambda x: x.mean((2, 3, 4)), lambda x: x.std((2, 3, 4), correction=0)):
        old = statistic(clean[0].detach())
        expected = own[:, None] * old + (1 - own[:, None]) * old.roll(1, 0)
        torch.testing.assert_close(statistic(mixed.detach()), expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_single_sample_stay():
    clean = features([(1, 4, 5, 6, 7)])
    torch.testing.assert_close(apply_feature_perturbation(clean[0], draw(clean, ["statistics"])[0]), clean[0])


def test_each_resolution_has_its_own_kind_and_all_kinds_come():
    clean = features() * 20
    kinds = [d.kind for d in draw(clean, KINDS)]
    assert {kinds.count(kind) > 5 for kind in KINDS} == {True}
    assert kinds[:8] != [kinds[0]] * 8


def test_half_precision_stays_half():
    clean = [f.detach().half() for f in features()]
    for kind in KINDS:
        perturbed = apply_feature_perturbation(clean[0], draw(clean, [kind])[0])
        assert perturbed.dtype == torch.float16 and perturbed.isfinite().all()


def test_draws_follow_from_the_generators_alone():
    clean, state = features(), torch.get_rng_state()
    one, again, other = (draw(clean, KINDS, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.values, b.values) for a, b in zip(one, again, strict=True))
    assert [d.values.shape for d in one] != [d.values.shape for d in other] or not torch.equal(
        one[0].values, other[0].values
    )
    assert torch.equal(torch.get_rng_state(), state)
