"""Weights that change while a training goes on."""

import math

import pytest

from nnunet_gmabs.learning.schedules import faded, noise_tolerant_weight, ramped, rounds_due, sigmoid_rampup


@pytest.mark.parametrize(("fraction", "weight"), [(0.0, math.exp(-5)), (0.5, math.exp(-1.25)), (1.0, 1.0)])
def test_ramp_by_hand(fraction, weight):
    assert sigmoid_rampup(fraction) == pytest.approx(weight, rel=1e-12)


def test_ramp_stays_at_its_ends_outside_of_0_to_1():
    assert sigmoid_rampup(-3.0) == sigmoid_rampup(0.0)
    assert sigmoid_rampup(7.0) == 1.0


def test_ramp_rises():
    weights = [sigmoid_rampup(i / 20) for i in range(21)]
    assert all(a < b for a, b in zip(weights, weights[1:], strict=False))


def test_a_ramped_weight_is_0_before_its_start_and_whole_from_its_end_on():
    weights = [ramped(progress, 0.5, 0.25, 0.75) for progress in (0.0, 0.2499, 0.25, 0.5, 0.75, 1.0)]
    assert weights == [0.0, 0.0, 0.5 * math.exp(-5), 0.5 * math.exp(-1.25), 0.5, 0.5]
    assert [ramped(progress, 2.0, 0.5, 0.5) for progress in (0.4, 0.5, 0.6)] == [0.0, 2.0 * math.exp(-5), 2.0]


def test_a_faded_value_falls_linearly_to_0_and_stays_there():
    values = [faded(progress, 0.75, 0.5) for progress in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    assert values == [0.75, 0.5625, 0.375, 0.0, 0.0, 0.0]
    assert faded(0.0, 0.75, 0.0) == 0.0 and faded(1.0, 0.75, 1.0) == 0.0


def test_rounds_fall_due_as_in_the_paper():
    due = [rounds_due(i / 100, 0.06, 0.06, 0.8) for i in range(101)]
    assert due[5] == 0 and due[6] == 1 and due[11] == 1 and due[12] == 2
    assert [due.index(n) for n in range(1, 14)] == [6 * n for n in range(1, 14)]  # 6 %, 12 %, ..., 78 %
    assert due[78] == due[100] == 13


def test_a_first_round_after_the_last_moment_never_falls_due():
    assert rounds_due(1.0, 0.9, 0.06, 0.8) == 0
    assert rounds_due(0.3, 0.3, 0.1, 0.3) == 1


def test_the_weight_of_pseudo_labels_fades_as_in_the_paper():
    assert noise_tolerant_weight(0.0) == pytest.approx(0.5 * (1 - 0.9 * math.exp(-5)), rel=1e-12)
    assert noise_tolerant_weight(0.5) == pytest.approx(0.5 * (1 - 0.9 * math.exp(-1.25)), rel=1e-12)
    assert noise_tolerant_weight(1.0) == pytest.approx(0.05, rel=1e-12)
