"""Axes along which classes lie the same way round."""

import numpy as np
import pytest

from nnunet_gmabs.learning.orientation import directed_axes


def cloud(centre, spread=1.0, number=400, seed=0):
    """Voxels around a centre, with the same standard deviation along each axis."""
    return np.random.default_rng(seed).normal(centre, spread, (number, len(centre)))


def scan(shift, spread=1.0, seed=0):
    """Class 2 lies at a shift from class 1."""
    return {1: cloud((0, 0, 0), spread, seed=seed), 2: cloud(shift, spread, seed=seed + 1)}


@pytest.mark.parametrize("shift", [(0, 3, 0), (0, -3, 0)])
def test_the_axis_that_tells_two_classes_apart(shift):
    assert directed_axes([scan(shift, seed=s) for s in range(3)]) == [1]


def test_one_scan_the_other_way_round_is_enough_to_mirror():
    assert directed_axes([scan((0, 3, 0)), scan((0, 3, 0)), scan((0, -0.5, 0))]) == []


def test_the_distance_is_counted_in_standard_deviations_of_the_classes_own_voxels():
    assert directed_axes([scan((0, 0, 3), spread=1)]) == [2]
    assert directed_axes([scan((0, 0, 3), spread=5)]) == []


def test_the_mean_over_scans_must_reach_one_deviation():
    near, far = scan((0.5, 0, 0)), scan((2, 0, 0))
    assert directed_axes([near, near, near]) == []
    assert directed_axes([near, far, far]) == [0]


def test_by_hand():
    # along axis 0: means 0.5 and 3.5, deviations 0.5 and 0.5, so d = -6; along axis 1 both are at 0 and 1
    places = {1: [[0, 0], [1, 1]], 2: [[3, 0], [4, 1]]}
    assert directed_axes([places]) == [0]


def test_scans_that_show_one_class_alone_say_nothing():
    assert directed_axes([{1: cloud((0, 0, 0))}, {2: cloud((9, 0, 0))}, {}]) == []
    assert directed_axes([scan((0, 3, 0)), {1: cloud((0, 0, 0))}, {1: cloud((0, 0, 0)), 2: np.empty((0, 3))}]) == [1]


def test_any_pair_of_many_classes_is_enough():
    places = {1: cloud((0, 0, 0)), 2: cloud((0.2, 0, 0), seed=1), 7: cloud((0.1, 0, 4), seed=2)}
    assert directed_axes([places]) == [2]


def test_planes_without_extent_along_an_axis_count_as_one_voxel_thick():
    flat = {1: [[5, y, 0] for y in range(9)], 2: [[5, y, 0] for y in range(9)]}
    assert directed_axes([flat]) == []
    assert directed_axes([{**flat, 2: [[6, y, 0] for y in range(9)]}]) == [0]
