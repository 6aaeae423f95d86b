import json
import os

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk

from nnunet_gmabs.annotation import sparsify as module
from nnunet_gmabs.annotation.planes import drawn_planes, plane_mask
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.sparsify import SparsifyPlan, choose_planes, choose_scans, sparsify
from nnunet_gmabs.cli import main
from nnunet_gmabs.errors import InputError

NAMES = [f"scan_{n:02d}" for n in range(30)]
SPACING = (1.0, 3.0, 2.0)
MIDDLE = [(0, 6), (1, 7), (2, 9)]  # of the boxes 4..8, 5..10, 6..12


@pytest.fixture
def dense(nnunet_folders):
    """Six dense training scans, one test scan."""
    folder = nnunet_folders["nnUNet_raw"] / "Dataset004_Dense"
    raw_data.write_dataset_json(folder, raw_data.LABELS)
    for number in range(6):
        raw_data.write_scan(folder, number)
        raw_data.write_labels(folder, number, planes=None)
    (folder / "imagesTs").mkdir()
    (folder / "labelsTs").mkdir()
    raw_data.write_image(folder / "imagesTs" / "test_01_0000.nii.gz", raw_data.scan_image(7))
    raw_data.write_image(folder / "labelsTs" / "test_01.nii.gz", raw_data.scan_labels(7))
    return folder


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def sharpest(number):
    """In SimpleITK's array order, which is nnU-Net's."""
    spacing = raw_data.scan_spacing(number)
    return spacing.index(max(spacing))


def number_of(path):
    return int(path.name[5:7])


def test_labelled_unlabelled_and_test_scans_are_all_scans():
    labelled, unlabelled, test = choose_scans(NAMES, SparsifyPlan(6, test=4))

    assert (len(labelled), len(unlabelled), len(test)) == (6, 20, 4)
    assert sorted(labelled + unlabelled + test) == NAMES


def test_a_small_budget_is_part_of_a_larger_one_with_the_same_seed():
    small, large = (choose_scans(NAMES, SparsifyPlan(n, seed=3))[0] for n in (6, 20))

    assert set(small) < set(large)


def test_seeds_choose_other_scans_but_share_the_test_set():
    first, second = (choose_scans(NAMES, SparsifyPlan(6, seed=seed, test=5)) for seed in (0, 1))

    assert first[0] != second[0]
    assert first[2] == second[2]
    assert choose_scans(NAMES, SparsifyPlan(6, seed=0, test=5, test_seed=1))[2] != first[2]


def test_more_scans_than_there_are_is_refused():
    with pytest.raises(InputError, match="25 labelled and 6 test scans asked for, but there are only 30"):
        choose_scans(NAMES, SparsifyPlan(25, test=6))


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (1, [(1, 7)]),  # across the largest spacing
        (2, [(1, 7), (2, 9)]),
        (3, MIDDLE),
        (4, [(0, 6), (1, 6), (1, 8), (2, 9)]),
        (6, [(0, 5), (0, 6), (1, 6), (1, 8), (2, 8), (2, 10)]),
    ],
)
def test_planes_go_round_the_axes_beginning_with_the_largest_spacing(planes, expected):
    rng = np.random.default_rng(0)

    assert choose_planes(raw_data.scan_labels(0), SPACING, SparsifyPlan(1, planes), rng) == expected


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 5, 6])
def test_random_planes_hold_foreground_and_are_distinct(planes):
    labels = raw_data.scan_labels(0)
    plan = SparsifyPlan(1, planes, position="random")
    seen = set()
    for seed in range(20):
        chosen = choose_planes(labels, SPACING, plan, np.random.default_rng(seed))
        assert len(set(chosen)) == planes
        assert all((labels[plane_mask(labels.shape, [plane])] > 0).any() for plane in chosen)
        seen |= {tuple(chosen)}
    assert len(seen) > 3


@pytest.mark.parametrize("position", ["roi-middle", "random"])
def test_more_planes_than_the_foreground_has_is_an_error(position):
    with pytest.raises(ValueError, match="asked for"):
        choose_planes(
            raw_data.scan_labels(0), SPACING, SparsifyPlan(1, 60, position=position), np.random.default_rng(0)
        )


def test_all_planes_are_those_of_the_axis_with_the_largest_spacing():
    labels = np.zeros((4, 5, 6), np.uint8)
    assert choose_planes(labels, SPACING, SparsifyPlan(1, planes=None), None) == [(1, index) for index in range(5)]


@pytest.mark.parametrize("position", ["roi-middle", "random"])
@pytest.mark.parametrize("planes", [1, 3, 7, None])
def test_an_image_of_one_slice_keeps_that_slice(planes, position):
    labels = np.zeros((5, 1, 7), int)
    plan = SparsifyPlan(1, planes, position=position)
    labels[2:4, 0, 3:6] = 1
    assert choose_planes(labels, SPACING, plan, np.random.default_rng(0)) == [(1, 0)]
    if planes is not None:
        with pytest.raises(ValueError, match="foreground"):
            choose_planes(np.zeros_like(labels), SPACING, plan, np.random.default_rng(0))


def test_a_scan_with_all_planes_is_labelled_densely(dense, capsys):
    assert main(["sparsify", "4", "Dataset005_Sparse", "--scans", "1", "--planes", "all"]) == 0
    [path] = (dense.parent / "Dataset005_Sparse" / "labelsTr").iterdir()
    np.testing.assert_array_equal(read(path), read(dense / "labelsTr" / path.name))
    assert f": all {read(path).shape[sharpest(number_of(path))]} planes" in capsys.readouterr().out


def test_the_copy_holds_planes_of_the_chosen_scans_only(dense):
    target = dense.with_name("Dataset005_Sparse")

    result = sparsify(dense, target, SparsifyPlan(2))

    files = sorted((target / "labelsTr").iterdir())
    assert [path.name[:7] for path in files] == sorted(result.planes) and len(files) == 2
    for path in files:
        truth = raw_data.scan_labels(number_of(path))
        labels = read(path)
        np.testing.assert_array_equal(labels, np.where(plane_mask(truth.shape, MIDDLE), truth, raw_data.IGNORE))
        assert drawn_planes(labels, raw_data.IGNORE) == MIDDLE == result.planes[path.name[:7]]
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == raw_data.SPARSE_LABELS and content["numTraining"] == 6


def test_all_dense_labels_images_and_test_scans_come_along(dense):
    target = dense.with_name("Dataset005_Sparse")

    sparsify(dense, target, SparsifyPlan(2))

    for theirs, ours in (
        ("imagesTr", "imagesTr"),
        ("labelsTr", "labelsTr_dense"),
        ("imagesTs", "imagesTs"),
        ("labelsTs", "labelsTs"),
    ):
        expected = {path.name: path.read_bytes() for path in (dense / theirs).iterdir()}
        assert {path.name: path.read_bytes() for path in (target / ours).iterdir()} == expected


def test_images_are_linked_and_labels_are_not(dense):
    """Who edits a label of the copy must not edit the original with it."""
    target = dense.with_name("Dataset005_Sparse")

    result = sparsify(dense, target, SparsifyPlan(2))

    assert (result.linked, result.copied) == (7, 0)
    image, label = "imagesTr/scan_00_0000.nii.gz", "scan_00.nii.gz"
    assert (target / image).samefile(dense / image)
    assert not (target / "labelsTr_dense" / label).samefile(dense / "labelsTr" / label)


def test_images_are_copied_where_links_are_impossible(dense, monkeypatch):
    target = dense.with_name("Dataset005_Sparse")

    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    result = sparsify(dense, target, SparsifyPlan(2))

    assert (result.linked, result.copied) == (0, 7)
    assert (target / "imagesTr" / "scan_00_0000.nii.gz").is_file()


def test_scans_moved_to_the_test_set_leave_training(dense):
    target = dense.with_name("Dataset005_Sparse")

    result = sparsify(dense, target, SparsifyPlan(2, test=3))

    raw = RawFolder(target)
    assert len(raw.scans()) == 3 and raw.scans("imagesTs") == sorted([*result.test, "test_01"])
    assert {path.name[:-7] for path in (target / "labelsTs").iterdir()} == {*result.test, "test_01"}
    assert {path.name[:-7] for path in (target / "labelsTr_dense").iterdir()} == set(raw.scans())
    for name in result.test:
        path = target / "labelsTs" / f"{name}.nii.gz"
        np.testing.assert_array_equal(read(path), raw_data.scan_labels(number_of(path)))
    assert raw.dataset_json["numTraining"] == 3


def test_the_same_seed_makes_the_same_labels(dense):
    for name in ("Dataset005_First", "Dataset006_Second"):
        sparsify(dense, dense.with_name(name), SparsifyPlan(3, seed=4, position="random"))

    first, second = (
        {path.name: path.read_bytes() for path in (dense.with_name(name) / "labelsTr").iterdir()}
        for name in ("Dataset005_First", "Dataset006_Second")
    )
    assert first == second


def test_what_was_kept_is_written_down(dense):
    assert main(["sparsify", "4", "Dataset005_Sparse", "--scans", "2", "--seed", "1"]) == 0

    record = json.loads((dense.with_name("Dataset005_Sparse") / "gmabs" / "sparsify.json").read_text())
    assert record["source"] == "Dataset004_Dense" and record["seed"] == 1
    assert list(record["planes_kept"].values()) == [[list(plane) for plane in MIDDLE]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4", "Dataset004_Dense", "--scans", "2"], "exists already"),
        (["4", "Sparse", "--scans", "2"], "Dataset104_Sparse"),
        (["4", "Dataset004_Other", "--scans", "2"], "same ID"),
        (["9", "Dataset005_Sparse", "--scans", "2"], "no folder Dataset009_"),
        (["4", "Dataset005_Sparse", "--scans", "9"], "only 6 scans"),
        (["4", "Dataset005_Sparse", "--scans", "0"], "scans=0"),
        (["4", "Dataset005_Sparse", "--scans", "2", "--planes", "60"], "ask for fewer planes"),
    ],
)
def test_bad_requests_are_refused_and_leave_no_trace(dense, capsys, arguments, message):
    before = raw_data.snapshot(dense.parent)

    assert main(["sparsify", *arguments]) == 2

    assert message in capsys.readouterr().err
    assert raw_data.snapshot(dense.parent) == before


def test_a_source_with_a_missing_label_is_refused(dense, capsys):
    (dense / "labelsTr" / "scan_03.nii.gz").unlink()

    assert main(["sparsify", "4", "Dataset005_Sparse", "--scans", "2"]) == 2

    assert "scan_03.nii.gz is missing" in capsys.readouterr().err


def test_an_interrupted_copy_leaves_no_trace(dense, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_record", stop)
    before = raw_data.snapshot(dense.parent)

    with pytest.raises(KeyboardInterrupt):
        sparsify(dense, dense.with_name("Dataset005_Sparse"), SparsifyPlan(2))

    assert raw_data.snapshot(dense.parent) == before
