"""Surface distances, worked by hand."""

import numpy as np
import pytest
import raw_data

from nnunet_gmabs.report.surface import surface_scores, surface_scores_per_class


def box(shift=0, size=10):
    mask = np.zeros((30, 30, 30), int)
    mask[8 + shift : 8 + shift + size, 8:18, 8:18] = 2
    return mask


def test_equal_labels_have_no_distance():
    assert surface_scores(box(), box(), 2, (1, 1, 1), 1) == (0, 1)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 1, 1)])
def test_a_shift_is_a_distance_in_mm(spacing):
    hd95, nsd = surface_scores(box(3), box(), 2, spacing, 0.5)
    assert hd95 == pytest.approx(3 * spacing[0])
    assert 0 < nsd < 1
    assert surface_scores(box(3), box(), 2, spacing, 3 * spacing[0])[1] == 1


def test_a_class_that_one_side_lacks_costs_the_whole_scan():
    diagonal = np.sqrt(30**2 + 30**2 + 60**2)
    for pair in ((np.zeros_like(box()), box()), (box(), np.zeros_like(box()))):
        assert surface_scores(*pair, 2, (1, 1, 2), 1) == (pytest.approx(diagonal), 0)


def test_a_class_that_both_lack_has_no_score():
    assert np.isnan(surface_scores(box(), box(), 1, (1, 1, 1), 1)).all()


def test_an_image_of_one_slice_has_contours():
    prediction, truth = np.zeros((2, 1, 30, 30), int)
    truth[0, 8:18, 8:18] = 2
    prediction[0, 5:18, 8:18] = 2
    hd95, nsd = surface_scores(prediction, truth, 2, (999, 1, 2), 0.5)
    # contours of 42 and 36 pixels: 10 + 2 x 2 in the three rows above, 8 of the true upper edge between its corners
    assert (hd95, nsd) == (pytest.approx(3), pytest.approx((42 - 14 + 36 - 8) / (42 + 36)))
    assert surface_scores(truth, truth, 2, (999, 1, 2), 0) == (0, 1)
    assert surface_scores(truth * 0, truth, 2, (999, 1, 2), 1) == (pytest.approx(np.hypot(30, 60)), 0)


def test_folders_are_read_with_their_spacing(tmp_path):
    for scan, spacing in [("a", (1, 1, 1)), ("b", (3, 1, 1))]:
        for folder, labels in (("truth", box()), ("predicted", box(2))):
            raw_data.write_image(tmp_path / folder / f"{scan}.nii.gz", labels.astype(np.uint8), spacing)
    hd95, nsd = surface_scores_per_class(tmp_path / "predicted", tmp_path / "truth", [2], 1)
    assert {scan: by_class[2] for scan, by_class in hd95.items()} == {"a": pytest.approx(2), "b": pytest.approx(6)}
    assert list(nsd) == ["a", "b"]
