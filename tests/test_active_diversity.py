"""Spreading over scans: histograms by hand, clusters that are plain to see, always the number asked for."""

import numpy as np
import pytest

from nnunet_gmabs.active.diversity import (
    image_descriptor,
    intensity_histogram,
    most_uncertain_of_each_cluster,
    standardise,
    typical_of_each_cluster,
)


def rng():
    return np.random.default_rng(3)


def test_histogram_of_its_own_range_by_hand():
    image = np.array([[10.0, 20.0], [20.0, 50.0]])
    assert intensity_histogram(image, 4).tolist() == [0.25, 0.5, 0.0, 0.25]
    assert np.array_equal(intensity_histogram(3 * image - 100, 4), intensity_histogram(image, 4))


def test_an_image_of_one_intensity_has_a_histogram():
    assert intensity_histogram(np.full((5, 6, 7), 4.0)).tolist() == [1.0] + [0.0] * 19


def test_descriptor_by_hand():
    image = np.zeros((1, 2, 3, 4))
    image[0, 0] = 8.0  # half the voxels at the top of the range: mean 0.5, sd 0.5, skewness 0
    descriptor = image_descriptor(image, (3.0, 2.0, 1.0))
    assert descriptor.shape == (29,)
    assert descriptor[[0, 19]].tolist() == [0.5, 0.5] and descriptor[1:19].sum() == 0
    assert descriptor[20:23] == pytest.approx([0.5, 0.5, 0.0])
    assert np.exp(descriptor[23:]) == pytest.approx([6, 6, 4, 3, 2, 1])


def test_a_constant_channel_has_a_descriptor():
    assert np.isfinite(image_descriptor(np.ones((2, 5, 6, 7)), (1, 1, 1))).all()


def test_constant_columns_become_zero():
    assert standardise(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


# three plain clusters, the last of one row
ROWS = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 0.0], [9.1, 0.0], [0.0, 50.0]])
SCORES = [0.2, 0.9, 0.3, 0.5, 0.4, 0.1]


def test_the_most_uncertain_of_each_cluster_a_cluster_of_one_included():
    assert most_uncertain_of_each_cluster(ROWS, SCORES, 3, rng()) == [1, 3, 5]


@pytest.mark.parametrize("number", range(1, 7))
def test_always_exactly_as_many_as_asked_for(number):
    chosen = most_uncertain_of_each_cluster(ROWS, SCORES, number, rng())
    assert len(set(chosen)) == number
    assert [SCORES[i] for i in chosen] == sorted((SCORES[i] for i in chosen), reverse=True)
    same = most_uncertain_of_each_cluster(np.zeros((6, 2)), SCORES, number, rng())
    assert same == [1, 3, 4, 2, 0, 5][:number], "equal rows are one cluster; scores decide"


def test_the_same_seed_gives_the_same_choice():
    rows = np.random.default_rng(0).random((40, 20))
    scores = np.random.default_rng(1).random(40)
    choices = [most_uncertain_of_each_cluster(rows, scores, 7, rng()) for _ in range(2)]
    assert choices[0] == choices[1]


@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize(
    "choose",
    [
        lambda n: most_uncertain_of_each_cluster(ROWS, SCORES, n, rng()),
        lambda n: typical_of_each_cluster(ROWS, n, rng()),
    ],
)
def test_more_than_there_are_is_refused(choose, number):
    with pytest.raises(ValueError, match=f"{number} scans asked for, but there are 6"):
        choose(number)


KINDS = np.array([[0.0, 0], [1, 0], [2, 0], [2.5, 0.5], [50, 0], [51, 0], [52.5, 0], [0, 99]])


def test_the_typical_row_of_the_largest_clusters():
    # means of the clusters: (1.375, 0.125), (51.17, 0), itself
    assert typical_of_each_cluster(KINDS, 3, rng()) == ([1, 5, 7], [4, 3, 1])


def test_one_typical_row_is_not_the_one_far_away():
    rows = np.array([[0.0], [1.0], [2.0], [100.0]])  # mean 25.75
    assert typical_of_each_cluster(rows, 1, rng()) == ([2], [4])
    assert typical_of_each_cluster(rows, 2, rng()) == ([1, 3], [3, 1])


def test_clusters_with_a_known_row_are_left_out():
    assert typical_of_each_cluster(KINDS, 1, rng(), known=KINDS[[1, 4]]) == ([7], [1])
    assert typical_of_each_cluster(KINDS, 2, rng(), known=KINDS[[7]]) == ([1, 5], [4, 3])


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("known", [None, ROWS[:3], np.zeros((4, 2))])
def test_always_as_many_typical_rows_as_asked_for(number, known):
    for rows in (ROWS, np.zeros((6, 2))):
        chosen, sizes = typical_of_each_cluster(rows, number, rng(), known)
        assert len(set(chosen)) == number == len(sizes)
