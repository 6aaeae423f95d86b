"""Scores of scans, against numbers worked by hand."""

import math

import numpy as np
import pytest

from nnunet_gmabs.active.scores import disagreement, most_uncertain_region, normalised_entropy, uncertain_fraction
from nnunet_gmabs.learning.schedules import uncertainty_threshold

SHAPE = (5, 6, 7)


def constant(*probs):
    return np.stack([np.full(SHAPE, p) for p in probs])


def test_entropy_by_hand():
    assert normalised_entropy(constant(0.5, 0.5)) == pytest.approx(np.ones(SHAPE))
    assert normalised_entropy(constant(1.0, 0.0, 0.0)) == pytest.approx(np.zeros(SHAPE), abs=0)
    # two of four classes, equally likely: log 2 / log 4
    assert normalised_entropy(constant(0.5, 0.5, 0, 0)) == pytest.approx(np.full(SHAPE, 0.5))


def test_uncertain_fraction_counts_voxels_above_the_threshold():
    probs = constant(1.0, 0.0)
    probs[:, 1] = 0.5  # one plane of five
    assert uncertain_fraction(probs, 0.5) == pytest.approx(1 / 5)
    assert uncertain_fraction(probs, 1.0) == 0.0, "above, not at"
    assert uncertain_fraction(np.zeros((2, 0, 6, 7)), 0.5) == 0.0


def reference_uncertain_fraction(probs, threshold):
    count = 0
    for place in np.ndindex(probs.shape[1:]):
        p = [float(v) for v in probs[(slice(None), *place)]]
        count += -sum(v * math.log(v) for v in p if v > 0) / math.log(len(p)) > threshold
    return count / math.prod(probs.shape[1:])


@pytest.mark.parametrize("threshold", [0.35, 0.6, 0.9])
def test_uncertain_fraction_is_the_equation(threshold):
    rng = np.random.default_rng(1)
    probs = rng.dirichlet([0.3, 0.5, 1.0], SHAPE).transpose(3, 0, 1, 2)
    assert uncertain_fraction(probs, threshold) == reference_uncertain_fraction(probs, threshold)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="one class alone"):
        uncertain_fraction(np.ones((1, *SHAPE)), 0.5)


def test_the_region_nearest_to_one_half_is_taken_as_two_classes():
    probs = constant(0.9, 0.4)
    probs[0, 2] = 0.45  # there the first region is the doubtful one
    expected = constant(0.6, 0.4)
    expected[:, 2] = np.array([0.55, 0.45])[:, None, None]
    assert most_uncertain_region(probs) == pytest.approx(expected)


def test_disagreement_by_hand():
    a, b = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    assert disagreement(a, b) == 0.0
    a[0, 0, :4] = 1
    b[0, 0, 2:6] = 1  # 6 voxels in either, 2 in both
    assert disagreement(a, b) == pytest.approx(4 / 6)
    b[0, 0, 2] = 2  # both see foreground, but another class
    assert disagreement(a, b) == disagreement(b, a) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="cannot be compared"):
        disagreement(a, b[1:])


@pytest.mark.parametrize(
    ("progress", "threshold"), [(0, 0.35 + 0.25 * math.exp(-5)), (0.5, 0.35 + 0.25 * math.exp(-1.25)), (1, 0.6)]
)
def test_threshold_by_hand(progress, threshold):
    assert uncertainty_threshold(progress) == pytest.approx(threshold, rel=1e-12)
