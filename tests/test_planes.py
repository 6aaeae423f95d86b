"""Planes: masks, what is drawn, and where the first planes are put."""

import numpy as np
import pytest

from nnunet_gmabs.annotation.planes import (
    PlaneRef,
    covering_planes,
    drawn_planes,
    keep_planes,
    plane_mask,
    random_planes,
    roi_middle_planes,
)

SHAPE = (5, 6, 7)
IGNORE = 3
FOREGROUND_PLANES = [*((0, i) for i in range(1, 4)), *((1, i) for i in range(2, 6)), *((2, i) for i in range(6))]


def dense_labels():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 2:6, 0:6] = 1
    labels[2, 3, 4] = 2
    return labels


def test_mask_holds_each_plane_and_nothing_else():
    mask = plane_mask(SHAPE, [(0, 4), (2, 1)])
    assert mask[4].all() and mask[:, :, 1].all()
    assert mask.sum() == 6 * 7 + 5 * 6 - 6


@pytest.mark.parametrize("plane", [(0, 5), (1, 6), (2, 7), (2, -1), (3, 0)])
def test_mask_refuses_planes_outside_the_scan(plane):
    with pytest.raises(ValueError, match="outside"):
        plane_mask(SHAPE, [plane])


def test_kept_planes_are_exactly_the_drawn_ones():
    planes = [(0, 1), (1, 5), (2, 0), (2, 6)]
    sparse = keep_planes(dense_labels(), planes, IGNORE)
    assert drawn_planes(sparse, IGNORE) == planes
    assert (sparse[1] == dense_labels()[1]).all()
    assert sparse.dtype == np.uint8


def test_ignore_label_that_does_not_fit_widens_the_type():
    sparse = keep_planes(dense_labels(), [(0, 1)], 300)
    assert sparse[0, 0, 0] == 300 and sparse.dtype == np.uint16


def test_one_missing_voxel_makes_a_plane_not_drawn():
    sparse = keep_planes(dense_labels(), [(0, 1), (2, 3)], IGNORE)
    sparse[1, 0, 0] = IGNORE
    assert drawn_planes(sparse, IGNORE) == [(2, 3)]


def test_unlabelled_scan_has_no_drawn_plane_and_a_dense_one_has_all():
    assert drawn_planes(np.full(SHAPE, IGNORE), IGNORE) == []
    assert len(drawn_planes(dense_labels(), IGNORE)) == 5 + 6 + 7


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_of_a_2d_image_are_no_planes_of_their_own(axis):
    image = np.expand_dims(dense_labels()[2], axis)
    assert drawn_planes(image, IGNORE) == [(axis, 0)]
    image[tuple(np.s_[2:3] if a != axis else np.s_[:] for a in range(3))] = IGNORE
    assert drawn_planes(image, IGNORE) == []


@pytest.mark.parametrize("planes", [[(0, 2), (1, 3), (2, 4)], [(2, 1), (2, 3), (2, 5)], [(1, 4)]])
def test_covering_planes_are_those_drawn_where_0_is_also_not_drawn(planes):
    drawn = np.where(plane_mask(SHAPE, planes), dense_labels(), 0)
    assert covering_planes(drawn) == planes


def test_nothing_drawn_is_covered_by_no_plane():
    assert covering_planes(np.zeros(SHAPE, int)) == []


def test_roi_middle_is_the_middle_of_the_box_of_all_foreground():
    assert roi_middle_planes(dense_labels()) == [(0, 2), (1, 3), (2, 2)]
    with pytest.raises(ValueError, match="foreground"):
        roi_middle_planes(np.zeros(SHAPE))


def test_random_planes_go_through_foreground_one_axis_after_the_other():
    for seed in range(20):
        planes = random_planes(dense_labels(), 3, np.random.default_rng(seed))
        assert [axis for axis, _ in planes] == [0, 1, 2]
        assert set(planes) <= set(FOREGROUND_PLANES)
    assert len({tuple(random_planes(dense_labels(), 3, np.random.default_rng(s))) for s in range(20)}) > 5


def test_random_planes_are_distinct_and_refuse_more_than_there_are():
    assert random_planes(dense_labels(), 13, np.random.default_rng(0)) == FOREGROUND_PLANES
    with pytest.raises(ValueError, match="only 13 planes"):
        random_planes(dense_labels(), 14, np.random.default_rng(0))


def test_a_plane_reference_is_a_value_and_checks_itself():
    assert PlaneRef("a", 1, 2) == PlaneRef("a", 1, 2) and PlaneRef("a", 1, 2).plane == (1, 2)
    with pytest.raises(ValueError, match="axis"):
        PlaneRef("a", 3, 0)
    with pytest.raises(ValueError, match="negative"):
        PlaneRef("a", 0, -1)
