"""What the generalist is shown."""

import numpy as np
import pytest

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.images import (
    ScanImages,
    masks_to,
    plan_window,
    prompt_to,
    resample,
    square_shape,
    to_eight_bit,
)
from nnunet_gmabs.generalist.prompts import Prompt


def test_a_window_maps_its_ends_to_black_and_white():
    np.testing.assert_array_equal(to_eight_bit(np.array([-5.0, 0.0, 5.0, 10.0, 99.0]), (0, 10)), [0, 0, 128, 255, 255])


def test_without_a_window_percentiles_of_the_whole_scan_count():
    image = np.arange(1001.0).reshape(7, 11, 13)
    np.testing.assert_array_equal(to_eight_bit(image), np.clip(np.rint((image - 5) * 255 / 990), 0, 255))


def test_a_constant_image_is_black():
    assert not to_eight_bit(np.full((5, 6, 7), 3.5)).any()


def test_a_few_bright_voxels_on_a_constant_image_are_seen():
    image = np.zeros((10, 20, 30))
    image[3, 4, 5] = 2.0
    assert to_eight_bit(image)[3, 4, 5] == 255


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_the_scans_name(value):
    image = np.zeros((5, 6, 7))
    image[0, 0, :2] = value
    with pytest.raises(InputError, match="la_001: 2 of 210"):
        to_eight_bit(image, name="la_001")


INTENSITIES = {"mean": 100.0, "std": 50.0, "percentile_00_5": 0.0, "percentile_99_5": 200.0}


def test_a_ct_window_is_the_fingerprints_in_units_of_the_training_grid():
    assert plan_window("CTNormalization", INTENSITIES) == (-2, 2)


def test_a_ct_window_can_be_set_in_hu():
    assert plan_window("CTNormalization", INTENSITIES, low=-100, high=150) == (-4, 1)
    assert plan_window("CTNormalization", INTENSITIES, high=150) == (-2, 1)


def test_other_images_have_no_window():
    assert plan_window("ZScoreNormalization", None) is None
    with pytest.raises(InputError, match="only CT has a window"):
        plan_window("ZScoreNormalization", None, low=0)


def test_an_empty_window_is_refused():
    with pytest.raises(InputError, match="not below"):
        plan_window("CTNormalization", INTENSITIES, low=300)


def test_square_slices_stay_as_they_are():
    assert square_shape((5, 7), (1.0, 1.01)) == (5, 7)
    assert square_shape((5, 7), (3.0, 1.0)) == (15, 7)
    assert square_shape((5, 7), (1.0, 2.5)) == (5, 18)


def test_slices_have_three_channels_and_square_pixels():
    images = ScanImages(np.random.default_rng(0).random((2, 5, 6, 7)), (3.0, 1.0, 1.5), channel=1)
    assert [images.slice(axis, 2).shape for axis in range(3)] == [(6, 10, 3), (10, 7, 3), (15, 6, 3)]
    assert images.slice(0, 0).dtype == np.uint8


def test_a_slice_shows_the_slice_three_times_or_its_neighbours():
    image = np.arange(5.0)[None, :, None, None] * np.ones((1, 5, 6, 7))
    alone = ScanImages(image, (1, 1, 1), window=(0, 255))
    assert alone.slice(0, 3)[0, 0].tolist() == [3, 3, 3]
    neighbours = ScanImages(image, (1, 1, 1), window=(0, 255), neighbours=True)
    assert neighbours.slice(0, 3)[0, 0].tolist() == [2, 3, 4]
    assert neighbours.slice(0, 0)[0, 0].tolist() == [0, 0, 1]
    assert neighbours.slice(0, 4)[0, 0].tolist() == [3, 4, 4]
    assert neighbours.slice(2, 0)[:, 0].tolist() == [[k, k, k] for k in range(5)]


def test_a_2d_configuration_has_slices_along_axis_0():
    images = ScanImages(np.zeros((1, 5, 6, 7)), (2.0, 1.0))
    assert images.slice(0, 4).shape == (12, 7, 3)


def test_a_channel_that_is_not_there_is_named():
    with pytest.raises(InputError, match="channel 2, but there are 2"):
        ScanImages(np.zeros((2, 5, 6, 7)), (1, 1, 1), channel=2)


def test_masks_survive_the_way_to_square_pixels_and_back():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 9, 11)) > 0.5
    for new in [(9, 11), (18, 11), (27, 11), (9, 33), (13, 11), (9, 29)]:
        there = masks if new == (9, 11) else resample(masks, new) > 0.5
        np.testing.assert_array_equal(masks_to(there, (9, 11)), masks)


def test_a_box_keeps_its_outer_edges_and_points_their_places():
    prompt = Prompt(np.array([2, 1, 4, 3.0]), np.array([[2.0, 1.0]]), np.array([1]), np.ones((5, 7), np.float32))
    moved = prompt_to(prompt, (5, 7), (15, 7))
    np.testing.assert_allclose(moved.box_xyxy, [2, 3, 4, 11])
    np.testing.assert_allclose(moved.points_xy, [[2, 4]])  # the middle one of its three
    assert moved.prior.shape == (15, 7) and (moved.prior == 1).all()
    back = prompt_to(moved, (15, 7), (5, 7))
    np.testing.assert_allclose(back.box_xyxy, prompt.box_xyxy)
    np.testing.assert_allclose(back.points_xy, prompt.points_xy)


def test_prompts_and_masks_go_through_a_scan():
    images = ScanImages(np.zeros((1, 5, 6, 7)), (3.0, 1.0, 1.0))
    prompt = Prompt(np.array([0, 0, 6, 4.0]), np.zeros((0, 2)), np.zeros(0, int))
    assert images.shape(1) == (5, 7) and images.square_shape(1) == (15, 7)
    np.testing.assert_allclose(images.to_square(1, prompt).box_xyxy, [0, 0, 6, 14])
    assert images.from_square(1, np.ones((2, 15, 7), bool)).shape == (2, 5, 7)
