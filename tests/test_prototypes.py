"""Class prototypes, whole and in parts, and what is most like them."""

import pytest
import torch

from nnunet_gmabs.generalist.prototypes import (
    PrototypeSums,
    class_prototypes,
    cosine_margin,
    cosine_similarity,
    has_prototype,
    nearest_prototype,
    prototype_probs,
)

SHAPE = (5, 6, 7)


@pytest.fixture
def scan():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, *SHAPE, generator=generator)
    return features, torch.softmax(3 * torch.randn(3, *SHAPE, generator=generator), 0)


def reference_prototypes(features, probs):
    """Voxel by voxel, as the equation says."""
    sums, weights = torch.zeros(len(probs), len(features)), torch.zeros(len(probs))
    for place in torch.cartesian_prod(*map(torch.arange, SHAPE)).tolist():
        p, f = probs[(slice(None), *place)], features[(slice(None), *place)]
        k = int(p.argmax())
        sums[k] += p[k] * f
        weights[k] += p[k]
    return sums / weights[:, None]


def test_by_hand():
    features = torch.tensor([[1.0, 3.0, 10.0], [0.0, 4.0, 20.0]])  # two features of three voxels
    probs = torch.tensor([[0.2, 0.4, 0.9], [0.8, 0.6, 0.1]])
    expected = [[10.0, 20.0], [(0.8 * 1 + 0.6 * 3) / 1.4, 0.6 * 4 / 1.4]]
    torch.testing.assert_close(class_prototypes(features, probs), torch.tensor(expected))


def test_equals_a_slow_reference(scan):
    torch.testing.assert_close(class_prototypes(*scan), reference_prototypes(*scan))


def test_parts_give_the_same_as_the_whole(scan):
    features, probs = scan
    own = probs * (torch.arange(3).view(-1, 1, 1, 1) == probs.argmax(0))
    sums = PrototypeSums(3)
    for part in (slice(0, 2), slice(2, 3), slice(3, None)):
        sums.add(features[:, part], own[:, part])
    torch.testing.assert_close(sums.prototypes(), class_prototypes(features, probs))


def test_a_class_without_voxels_has_no_prototype_and_no_probability(scan):
    features, probs = scan
    probs = torch.cat([probs, torch.zeros(1, *SHAPE)])
    prototypes = class_prototypes(features, probs)
    assert has_prototype(prototypes).tolist() == [True, True, True, False]
    q = prototype_probs(-features.abs(), prototypes.abs())  # every cosine is negative: 0 would win
    assert q[3].abs().max() == 0
    torch.testing.assert_close(q.sum(0), torch.ones(SHAPE))
    assert nearest_prototype(cosine_similarity(-features.abs(), prototypes.abs()), has_prototype(prototypes)).max() < 3


def test_probabilities_are_a_softmax_of_scaled_cosines():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # voxels along the two axes
    q = prototype_probs(features, torch.tensor([[3.0, 0.0], [1.0, 1.0]]), scale=2.0)
    expected = torch.softmax(2 * torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5]]), 0)
    torch.testing.assert_close(q, expected)


def test_no_prototype_at_all_gives_zeros():
    assert prototype_probs(torch.randn(2, 3), torch.zeros(4, 2)).tolist() == [[0.0] * 3] * 4


def test_the_margin_tells_apart_what_the_softmax_does_not():
    cosine = torch.tensor([[1.0, 0.99], [-1.0, -0.9], [-1.0, -1.0]])
    q = torch.softmax(20 * cosine, 0)
    assert q[0, 0] == q[0, 1] == 1.0  # saturated
    margin = cosine_margin(cosine, torch.tensor([True, True, True]))
    torch.testing.assert_close(margin, torch.tensor([[2.0, 1.89], [-2.0, -1.89], [-2.0, -1.99]]))


def test_the_margin_ignores_classes_without_prototype():
    margin = cosine_margin(torch.tensor([[0.5], [0.2], [0.9]]), torch.tensor([True, True, False]))
    torch.testing.assert_close(margin[:2], torch.tensor([[0.3], [-0.3]]))


def test_a_zero_feature_is_like_nothing():
    assert cosine_similarity(torch.zeros(2, 3), torch.eye(2)).abs().max() == 0
