import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_gmabs.demo.synthetic import CONTRASTS, FIELD_OF_VIEW_MM, draw_scan, write_data_set
from nnunet_gmabs.errors import InputError

ORGAN, TUBE = 1, 2


def draw(number, contrast=0):
    return draw_scan(np.random.default_rng([0, number]), contrast)


def test_one_generator_state_gives_one_scan():
    first, again, other = draw(0), draw(0), draw(1)

    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.labels.shape != other.labels.shape or (first.labels != other.labels).any()


def test_scans_differ_in_size_and_spacing_and_cover_the_same_millimetres():
    scans = [draw(number) for number in range(4)]

    assert len({scan.image.shape for scan in scans}) >= 3
    for scan in scans:
        assert all(40 <= n <= 56 for n in scan.image.shape)
        np.testing.assert_allclose(np.multiply(scan.image.shape, scan.spacing_mm), FIELD_OF_VIEW_MM, rtol=1e-3)


@pytest.mark.parametrize("number", range(6))
def test_every_scan_has_both_organs_and_they_touch(number):
    labels = draw(number, number % 2).labels
    share = np.bincount(labels.ravel(), minlength=3) / labels.size

    assert 0.005 < share[ORGAN] < 0.06
    assert 0.002 < share[TUBE] < 0.02
    assert share.sum() == pytest.approx(1)
    near_organ = np.zeros(labels.shape, bool)
    for axis in range(3):
        for step in (-1, 1):
            near_organ |= np.roll(labels == ORGAN, step, axis)
    assert (near_organ & (labels == TUBE)).any()


@pytest.mark.parametrize(("contrast", "sign"), [(0, 1), (1, -1)])
def test_organs_are_bright_in_one_contrast_and_dark_in_the_other(contrast, sign):
    scan = draw(3, contrast)
    organ, tube = (np.median(scan.image[scan.labels == label]) for label in (ORGAN, TUBE))
    body = np.median(scan.image[(scan.labels == 0) & (scan.image > 250)])

    assert sign * (organ - body) > 50
    assert sign * (tube - organ) > 50
    assert CONTRASTS[contrast][1] * 1000 == pytest.approx(body, rel=0.25)


def test_something_that_looks_like_the_organ_is_background():
    """In smoothed dark-organ scans, a region of the organ's intensity lies deep in the body but is not labelled."""
    from scipy.ndimage import gaussian_filter, label

    scan = draw(1, contrast=1)
    smooth = gaussian_filter(scan.image.astype(float), 1.5)
    organ = np.median(smooth[scan.labels == ORGAN])
    body = np.median(smooth[(scan.labels == 0) & (scan.image > 250)])
    inside = np.zeros(scan.labels.shape, bool)
    inside[12:-12, 12:-12, 12:-12] = True
    regions, _ = label((smooth < (organ + body) / 2) & inside & (scan.labels == 0))

    largest = np.bincount(regions.ravel())[1:].max()
    assert largest > 0.25 * (scan.labels == ORGAN).sum()


def test_images_are_never_zero_so_that_nothing_is_cropped():
    assert draw(0).image.min() >= 1


def test_the_data_set_is_what_nnunet_expects(tmp_path):
    folder = tmp_path / "Dataset901_Synthetic"

    write_data_set(folder, train=2, test=1, seed=5)

    content = json.loads((folder / "dataset.json").read_text())
    assert content["numTraining"] == 2 and content["labels"] == {"background": 0, "organ": 1, "tube": 2}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz"))
    assert files == [
        "imagesTr/scan_000_0000.nii.gz",
        "imagesTr/scan_001_0000.nii.gz",
        "imagesTs/scan_002_0000.nii.gz",
        "labelsTr/scan_000.nii.gz",
        "labelsTr/scan_001.nii.gz",
        "labelsTs/scan_002.nii.gz",
    ]
    scan = draw_scan(np.random.default_rng([5, 1]), 1)
    for name, array in (("imagesTr/scan_001_0000", scan.image), ("labelsTr/scan_001", scan.labels)):
        image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
        np.testing.assert_allclose(image.GetSpacing()[::-1], scan.spacing_mm, rtol=1e-6)


def test_scans_do_not_depend_on_how_many_there_are(tmp_path):
    write_data_set(tmp_path / "small", train=1, test=1)
    write_data_set(tmp_path / "large", train=2, test=0)

    for name in ("imagesT{}/scan_001_0000.nii.gz", "labelsT{}/scan_001.nii.gz"):
        assert (tmp_path / "small" / name.format("s")).read_bytes() == (
            tmp_path / "large" / name.format("r")
        ).read_bytes()


def test_an_existing_folder_is_kept(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        write_data_set(tmp_path)
    assert list(tmp_path.iterdir()) == []
