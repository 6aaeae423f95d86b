"""Connected parts: which are too small, and what an expert's planes say of that."""

import numpy as np
import pytest

from nnunet_gmabs.generalist.parts import smallest_parts, without_small_parts

IGNORE = 3


def test_small_parts_go_by_their_share_of_the_largest_part_of_their_class():
    labels = np.zeros((5, 6, 7), np.int16)
    labels[0:2, 0:5, 0] = 1  # 10 voxels
    labels[4, 0:2, 6] = 1  # 2 voxels
    labels[4, 5, 6] = 1  # 1 voxel
    labels[2, 2, 2] = 2  # the only part of its class
    assert np.array_equal(without_small_parts(labels, [0.0, 0.0]), labels)
    counts = {share: int((without_small_parts(labels, [share, 0.0]) == 1).sum()) for share in (0.1, 0.15, 0.25, 1.0)}
    assert counts == {0.1: 13, 0.15: 12, 0.25: 10, 1.0: 10}
    assert (without_small_parts(labels, [1.0, 1.0]) == 2).sum() == 1
    assert np.array_equal(np.unique(without_small_parts(labels, [0.0, 1.0])), [0, 1, 2])
    assert not without_small_parts(np.zeros((5, 6, 7), np.int16), [0.5]).any()


def test_parts_that_touch_another_class_are_not_its():
    labels = np.array([[[1, 1, 2, 1]]], np.int16)
    assert without_small_parts(labels, [0.6, 0.6]).tolist() == [[[1, 1, 2, 0]]]


def scan(planes, shape=(20, 20, 20)):
    """Undrawn but for some planes of axis 0, each given as [(class, first row, rows), ...] in columns 5 to 9."""
    labels = np.full(shape, IGNORE)
    for index, blocks in enumerate(planes):
        labels[3 * index] = 0
        for label, first, rows in blocks:
            labels[3 * index, first : first + rows, 5:10] = label
    return labels


ONE, TWO, SPECK = [(1, 2, 10)], [(1, 2, 10), (1, 15, 1)], [(1, 2, 11), (1, 15, 1)]


@pytest.mark.parametrize(
    ("planes", "share"),
    [
        ([ONE] * 6, 1.0),
        ([ONE] * 5, 0.1),  # too few to tell
        ([ONE] * 5 + [TWO], 1.0),  # a sixth in pieces
        ([ONE] * 3 + [TWO], 0.1),  # too few
        ([ONE] * 4 + [TWO] * 2, 0.1),  # a third in pieces
        ([ONE] * 4 + [SPECK] * 2, 1.0),  # specks of less than a tenth are no pieces
        ([[]] * 6, 0.1),  # never shown
    ],
)
def test_a_class_is_one_piece_where_planes_show_it_so(planes, share):
    assert smallest_parts([scan(planes)], IGNORE) == [share, 0.1]


def test_planes_of_all_scans_and_axes_and_each_class_count_for_themselves():
    both = [(1, 2, 4), (2, 8, 4), (1, 14, 4)]
    scans = [scan([both] * 3), np.moveaxis(scan([both] * 3), 0, 2)]
    assert smallest_parts(scans, IGNORE) == [0.1, 1.0]
    assert smallest_parts(scans[:1], IGNORE) == [0.1, 0.1]


def test_planes_that_are_not_drawn_completely_tell_nothing():
    labels = scan([ONE] * 6)
    labels[:, 0, 0] = IGNORE
    assert smallest_parts([labels], IGNORE) == [0.1, 0.1]


def test_an_image_of_one_slice_is_one_plane_not_one_for_each_of_its_rows():
    """Two organs, one to the upper left of the other: no row or column crosses both."""
    image = np.zeros((1, 20, 20), int)
    image[0, 2:8, 2:8] = image[0, 11:17, 11:17] = 1
    image[0, 2:8, 12:18] = 2
    assert smallest_parts([image] * 6, IGNORE) == [0.1, 1.0]
    assert smallest_parts([image] * 5, IGNORE) == [0.1, 0.1]
