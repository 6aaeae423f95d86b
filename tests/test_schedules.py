"""Weights that change while a training goes on."""

import math

import pytest

from nnunet_gmabs.learning.schedules import sigmoid_rampup


@pytest.mark.parametrize(("fraction", "weight"), [(0.0, math.exp(-5)), (0.5, math.exp(-1.25)), (1.0, 1.0)])
def test_ramp_by_hand(fraction, weight):
    assert sigmoid_rampup(fraction) == pytest.approx(weight, rel=1e-12)


def test_ramp_stays_at_its_ends_outside_of_0_to_1():
    assert sigmoid_rampup(-3.0) == sigmoid_rampup(0.0)
    assert sigmoid_rampup(7.0) == 1.0


def test_ramp_rises():
    weights = [sigmoid_rampup(i / 20) for i in range(21)]
    assert all(a < b for a, b in zip(weights, weights[1:], strict=False))
