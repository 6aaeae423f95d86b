import matplotlib.image
import numpy as np
import raw_data

from nnunet_gmabs.report.contours import ScanPicture, draw_contours, telling_index

NAMES = {1: "left", 2: "right"}


def picture(number, labels=None):
    truth = raw_data.scan_labels(number)
    return ScanPicture(
        raw_data.name(number),
        raw_data.scan_image(number),
        truth,
        {"stock": np.zeros_like(truth), "ours": truth if labels is None else labels},
        raw_data.scan_spacing(number),
    )


def test_the_slice_shown_has_all_classes():
    truth = np.zeros((5, 6, 7), int)
    truth[0, :, :] = 1  # most of class 1, none of class 2
    truth[2, 1:4, 1:4] = 1
    truth[2, 4, 4] = 2
    truth[4, :3, :3] = 2

    assert telling_index(truth, [1, 2]) == 2
    assert telling_index(truth, [1]) == 0
    assert telling_index(truth, [2]) == 4


def test_a_scan_without_any_class_shows_its_middle():
    assert telling_index(np.zeros((5, 6, 7), int), [1, 2]) == 2


def test_along_another_axis_the_index_is_of_that_axis():
    truth = np.zeros((5, 6, 7), int)
    truth[:, :, 6] = 1

    assert telling_index(truth, [1], axis=2) == 6


def test_the_picture_has_a_row_for_each_scan_and_shows_labels_in_colour(tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"

    draw_contours(one, [picture(0)], NAMES)
    draw_contours(two, [picture(0), picture(1)], NAMES)

    small, large = matplotlib.image.imread(one), matplotlib.image.imread(two)
    assert large.shape[1] == small.shape[1] and large.shape[0] > 1.5 * small.shape[0]
    colours = small[..., :3].max(axis=-1) - small[..., :3].min(axis=-1)
    assert (colours > 0.5).sum() > 500


def test_a_prediction_without_any_class_is_drawn_without_complaint(tmp_path, recwarn):
    truth = raw_data.scan_labels(0)

    draw_contours(tmp_path / "empty.png", [picture(0, np.zeros_like(truth))], NAMES)

    assert (tmp_path / "empty.png").stat().st_size > 1000
    assert not [warning for warning in recwarn if "contour" in str(warning.message)]
