"""Crops around prompts and back."""

import numpy as np
import pytest

from nnunet_gmabs.generalist.crops import Window, box_in_crop, cut, interpolation_matrix, paste, window_around


def test_a_window_is_concentric_with_its_box_and_larger():
    window = window_around(np.array([2, 3, 11, 6]))  # 10 x 4 pixels
    assert (window.centre_x, window.centre_y, window.side) == (6.5, 4.5, 1.5 * 10 + 6)


def test_interpolation_between_two_pixels_is_linear():
    weights = interpolation_matrix(np.array([0.0, 0.25, 0.5]), 2)
    np.testing.assert_allclose(weights, [[1, 0], [0.75, 0.25], [0.5, 0.5]])


def test_positions_outside_take_the_nearest_pixel():
    weights = interpolation_matrix(np.array([-1.5, -0.5, 0.5, 1.5, 2.5]), 3)
    np.testing.assert_allclose(weights, [[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]])


def test_where_pixels_grow_all_of_them_count():
    weights = interpolation_matrix((np.arange(3) + 0.5) * 4 - 0.5, 12)
    assert (weights.sum(0) > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def reference_cut(planes, window, size):
    result = np.zeros((len(planes), size, size))
    for row, y in enumerate(window.positions(size, "y")):
        for column, x in enumerate(window.positions(size, "x")):
            y0, x0 = np.clip(y, 0, planes.shape[1] - 1), np.clip(x, 0, planes.shape[2] - 1)
            top, left = min(int(y0), planes.shape[1] - 2), min(int(x0), planes.shape[2] - 2)
            fy, fx = y0 - top, x0 - left
            four = planes[:, top : top + 2, left : left + 2]
            weights = np.outer([1 - fy, fy], [1 - fx, fx])
            result[:, row, column] = (four * weights).sum((1, 2))
    return result


@pytest.mark.parametrize("window", [Window(3.2, 2.7, 5.0), Window(0.0, 5.0, 7.5), Window(8.0, 1.0, 3.0)])
def test_enlarged_crops_are_bilinear_and_go_on_beyond_the_edge(window):
    planes = np.random.default_rng(0).random((2, 6, 9))
    np.testing.assert_allclose(cut(planes, window, 8), reference_cut(planes, window, 8), atol=1e-5)


def test_a_crop_of_native_size_is_the_slice_itself():
    planes = np.random.default_rng(0).random((2, 20, 30)).astype(np.float32)
    crop = cut(planes, Window(12.5, 9.5, 8.0), 8)  # pixels 9..16 and 6..13
    np.testing.assert_allclose(crop, planes[:, 6:14, 9:17], atol=1e-6)


def test_pasting_a_crop_of_native_size_restores_its_part_of_the_slice():
    plane = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    window = Window(12.5, 9.5, 8.0)
    pasted = paste(cut(plane[None], window, 8)[0], window, plane.shape, -7)
    np.testing.assert_allclose(pasted[6:14, 9:17], plane[6:14, 9:17], atol=1e-6)
    pasted[6:14, 9:17] = -7
    assert (pasted == -7).all()


@pytest.mark.parametrize("window", [Window(1.0, 2.0, 12.0), Window(33.0, 3.0, 9.0), Window(14.3, 10.1, 31.7)])
def test_a_smooth_image_survives_the_way_there_and_back(window):
    y, x = np.mgrid[:20, :34]
    plane = (np.sin(x / 6) + np.cos(y / 5)).astype(np.float32)
    pasted = paste(cut(plane[None], window, 48)[0], window, plane.shape, np.nan)
    covered = np.isfinite(pasted)
    assert covered.any()
    assert np.abs(pasted - plane)[covered].max() < 0.12  # of a range of 4; most at edges


def test_a_window_beside_the_slice_pastes_nothing():
    assert (paste(np.ones((8, 8)), Window(100, 100, 5.0), (6, 7), -1) == -1).all()


def test_points_and_boxes_follow_the_pixels():
    window = Window(12.5, 9.5, 8.0)
    np.testing.assert_allclose(window.to_crop(np.array([[9.0, 6.0], [12.5, 9.5]]), 8), [[0, 0], [3.5, 3.5]])
    np.testing.assert_allclose(box_in_crop(window, np.array([9.0, 6.0, 16.0, 13.0]), 8), [0, 0, 7, 7])
    np.testing.assert_allclose(box_in_crop(window, np.array([9.0, 6.0, 9.0, 6.0]), 16), [0, 0, 1, 1])  # one pixel: two
