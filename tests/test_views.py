"""Slices along three axes of a scan whose axes all differ in length."""

import numpy as np
import pytest
import torch

from nnunet_gmabs.generalist.views import (
    in_plane_axes,
    in_plane_spacing,
    put_slice,
    slices_with,
    take_slice,
    view_axes,
)

SHAPE = (5, 6, 7)
SLICE_SHAPES = {0: (6, 7), 1: (5, 7), 2: (5, 6)}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", [(), (2,), (3, 4)])
def test_slices_along_an_axis_are_those_of_numpys_take(axis, channels):
    array = np.random.default_rng(0).random((*channels, *SHAPE))
    for index in range(SHAPE[axis]):
        values = take_slice(array, axis, index)
        assert values.shape == (*channels, *SLICE_SHAPES[axis])
        assert np.array_equal(values, np.take(array, index, axis=len(channels) + axis))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_comes_back_to_where_its_slice_was(axis):
    array = np.random.default_rng(1).random((2, *SHAPE)) < 0.5
    copy = np.zeros_like(array)
    for index in range(SHAPE[axis]):
        put_slice(copy, axis, index, take_slice(array, axis, index))
    assert np.array_equal(copy, array)


def test_tensors_are_sliced_too():
    tensor = torch.arange(210).reshape(SHAPE)
    assert torch.equal(take_slice(tensor, 1, 3), tensor[:, 3, :])


def test_the_plane_of_a_view_by_hand():
    assert [in_plane_axes(axis) for axis in range(3)] == [(1, 2), (0, 2), (0, 1)]
    assert [in_plane_spacing((5, 1, 0.5), axis) for axis in range(3)] == [(1, 0.5), (5, 0.5), (5, 1)]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((1, 1, 1), [0, 1, 2]),
        ((2.9, 1, 1), [0, 1, 2]),
        ((3, 1, 1), [0]),  # nnU-Net calls 3 anisotropic
        ((1, 1, 5), [2]),
        ((1, 5, 1), [1]),
        ((4, 2, 1), [0, 2]),
        ((9, 3, 1), [0]),  # 3, 9 and 3: none is square enough, the first is the squarest
        ((16, 1, 3.5), [0]),
        ((1, 1), [0]),
        ((0.5, 5), [0]),
    ],
)
def test_well_resolved_views_by_hand(spacing, expected):
    assert view_axes(spacing, "well-resolved") == expected


def test_all_views_are_three_but_for_a_2d_configuration():
    assert view_axes((9, 1, 1)) == [0, 1, 2]
    assert view_axes((1, 1)) == [0]


@pytest.mark.parametrize(("spacing", "which"), [((1, 1, 1), "some"), ((1,), "all"), ((1, 1, 1, 1), "all")])
def test_what_is_unknown_is_refused(spacing, which):
    with pytest.raises(ValueError):
        view_axes(spacing, which)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_with_a_region(axis):
    region = np.zeros(SHAPE, dtype=bool)
    assert slices_with(region, axis).tolist() == []
    region[1, 2, 3] = region[4, 2, 3] = region[4, 5, 6] = True
    assert slices_with(region, axis).tolist() == [[1, 4], [2, 5], [3, 6]][axis]
