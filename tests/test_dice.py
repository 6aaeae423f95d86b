import math

import numpy as np
import pytest
import raw_data

from nnunet_gmabs.cli import main
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.dice import class_means, dice, dice_per_class, mean, scan_means
from nnunet_gmabs.report.scores import Score, paired_differences, read_scores, scores_of, write_scores
from nnunet_gmabs.report.tables import dice_table

NAN = float("nan")
SCORES = {"scan_1": {1: 0.5, 2: NAN}, "scan_2": {1: 1.0, 2: 0.25}}


@pytest.fixture
def folders(tmp_path):
    """Two scans: one predicted half, one with class 1 only."""
    truth = np.zeros((5, 6, 7), np.uint8)
    truth[1:3, 2:4, 3:5] = 1  # 8 voxels
    truth[4, 5, :] = 2  # 7 voxels
    half = truth.copy()
    half[1, 2:4, 3:5] = 0  # 4 of 8 are left: 2 * 4 / (4 + 8)
    half[0, 0, :3] = 2  # 3 wrong ones: 2 * 7 / (10 + 7)
    alone = np.where(truth == 1, 1, 0).astype(np.uint8)
    for name, prediction, true in (("scan_1", half, truth), ("scan_2", alone, alone)):
        raw_data.write_image(tmp_path / "predicted" / f"{name}.nii.gz", prediction)
        raw_data.write_image(tmp_path / "truth" / f"{name}.nii.gz", true)
    (tmp_path / "predicted" / "dataset.json").write_text("{}")  # nnUNetv2_predict writes such files, too
    return tmp_path / "predicted", tmp_path / "truth"


def test_dice_is_twice_the_overlap_over_the_sum():
    prediction, truth = np.array([[1, 1, 1, 0]]), np.array([[1, 1, 0, 2]])

    assert dice(prediction, truth, 1) == 4 / 5
    assert dice(prediction, truth, 2) == 0
    assert math.isnan(dice(prediction, truth, 3))


def test_ignored_voxels_do_not_count():
    prediction, truth = np.array([1, 1, 1, 0]), np.array([1, 9, 9, 1])

    assert dice(prediction, truth, 1, ignore_label=9) == 2 / 3


def test_every_scan_and_class_gets_its_dice(folders):
    result = dice_per_class(*folders, labels=[1, 2])

    assert result["scan_1"] == {1: 8 / 12, 2: 14 / 17}
    assert result["scan_2"][1] == 1.0 and math.isnan(result["scan_2"][2])


def test_a_class_that_is_nowhere_is_left_out_of_the_means():
    assert scan_means(SCORES) == {"scan_1": 0.5, "scan_2": 0.625}
    assert class_means(SCORES) == {1: 0.75, 2: 0.25}
    assert math.isnan(mean([NAN]))


def test_the_table_ends_with_the_means():
    header, rows = dice_table(SCORES, {1: "organ"})

    assert header == ["scan", "organ", "class 2", "mean"]
    assert rows == [
        ["scan_1", "50.0", "-", "50.0"],
        ["scan_2", "100.0", "25.0", "62.5"],
        ["mean", "75.0", "25.0", "56.2"],
    ]


@pytest.mark.parametrize(("index", "other"), [(0, 1), (1, 0)])
def test_a_file_missing_on_either_side_is_an_error(folders, index, other):
    (folders[index] / "scan_2.nii.gz").unlink()

    with pytest.raises(InputError) as error:
        dice_per_class(*folders, labels=[1])

    assert str(folders[index] / "scan_2.nii.gz") in str(error.value) and str(folders[other]) in str(error.value)


def test_another_shape_is_an_error(folders):
    raw_data.write_image(folders[0] / "scan_1.nii.gz", np.zeros((5, 6, 8), np.uint8))

    with pytest.raises(InputError, match=r"shape \(5, 6, 8\).*\(5, 6, 7\)"):
        dice_per_class(*folders, labels=[1])


def test_a_broken_file_is_named(folders):
    path = folders[0] / "scan_1.nii.gz"
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(InputError, match=r"scan_1.nii.gz: truncated or damaged"):
        dice_per_class(*folders, labels=[1])


@pytest.mark.parametrize("folder", [0, 1])
def test_a_truncated_file_is_not_taken_for_background(folders, folder):
    path = folders[folder] / "scan_2.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])  # SimpleITK fills up with 0 what is missing

    with pytest.raises(InputError, match=r"scan_2.nii.gz: truncated or damaged"):
        dice_per_class(*folders, labels=[1])


def test_labels_that_are_no_integers_are_refused(folders):
    raw_data.write_image(folders[1] / "scan_1.nii.gz", np.full((5, 6, 7), 0.999, np.float32))

    with pytest.raises(InputError, match=r"truth/scan_1.nii.gz: holds 0.999, which is no integer"):
        dice_per_class(*folders, labels=[1])


def test_a_truth_on_another_grid_of_the_same_shape_is_refused(folders):
    mirrored = tuple(-d for d in raw_data.DIRECTION[:3]) + raw_data.DIRECTION[3:]
    raw_data.write_image(folders[1] / "scan_1.nii.gz", np.zeros((5, 6, 7), np.uint8), direction=mirrored)

    with pytest.raises(InputError, match=r"truth/scan_1.nii.gz: has direction .*export it on the grid of the image"):
        dice_per_class(*folders, labels=[1])


def test_3d_tif_files_are_read(tmp_path):
    import tifffile

    truth = np.zeros((5, 6, 7), np.uint8)
    truth[1:3, 2:4, 3:5] = 1  # 8 voxels
    for folder, labels in (("predicted", np.where(np.arange(5)[:, None, None] == 1, 0, truth)), ("truth", truth)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "scan_1.tif", labels.astype(np.uint8))
        (tmp_path / folder / "scan_1.json").write_text('{"spacing": [2, 1, 1]}')

    assert dice_per_class(tmp_path / "predicted", tmp_path / "truth", [1], ".tif") == {"scan_1": {1: 8 / 12}}


def test_a_table_that_cannot_be_written_is_named_before_anything_is_read(folders, tmp_path, capsys):
    table = tmp_path / "tables" / "dice.csv"

    assert main(["evaluate", "-p", str(folders[0]), "-g", str(folders[1]), "-l", "1", "--csv", str(table)]) == 2

    said = capsys.readouterr()
    assert said.out == "" and f"--csv {table}: {table.parent} is no folder" in said.err


def test_evaluate_prints_the_table_and_writes_the_values(folders, tmp_path, capsys):
    csv = tmp_path / "dice.csv"

    assert main(["evaluate", "-p", str(folders[0]), "-g", str(folders[1]), "-l", "1", "2", "--csv", str(csv)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["scan", "class", "1", "class", "2", "mean"]
    assert lines[2].split() == ["scan_1", "66.7", "82.4", "74.5"]
    assert lines[4].split() == ["mean", "83.3", "82.4", "87.3"]
    assert csv.read_text().splitlines()[:2] == [
        "cell,seed,scan,class,dice,seconds,iterations",
        f"dice,0,scan_1,1,{8 / 12},nan,0",
    ]


def test_scores_come_back_as_they_were_written(tmp_path):
    scores = [Score("sparse", 2, "scan_1", 1, 2 / 3, 12.5, 600), Score("sparse", 2, "scan_2", 1, 1.0, 12.5, 600)]

    write_scores(tmp_path / "scores.csv", scores)

    assert read_scores(tmp_path / "scores.csv") == scores


def test_scan_class_and_dice_are_all_a_table_needs(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("scan,class,dice\nscan_1,1,0.5\n")

    (score,) = read_scores(path)

    assert (score.cell, score.seed, score.scan, score.label, score.dice) == ("mine", 0, "scan_1", 1, 0.5)


@pytest.mark.parametrize("text", ["scan,dice\nscan_1,0.5\n", "scan,class,dice\nscan_1,1,good\n"])
def test_another_table_is_refused(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)

    with pytest.raises(InputError, match="not a table of scores"):
        read_scores(tmp_path / "mine.csv")


def test_differences_are_paired_by_seed_and_scan():
    scores = [
        *scores_of({"b": {1: 0.75}, "a": {1: 0.5}}, "new", seed=1),
        *scores_of({"a": {1: 0.25}, "b": {1: 0.5}}, "old", seed=1),
        *scores_of({"a": {1: 0.5}, "b": {1: 0.5}}, "new", seed=0),
        *scores_of({"a": {1: 1.0}, "b": {1: 0.0}}, "old", seed=0),
        *scores_of({"a": {1: 0.9}, "b": {1: 0.9}}, "new", seed=7),
    ]

    differences, seeds, scans = paired_differences(scores, "new", "old")

    assert (seeds, scans) == ([0, 1], ["a", "b"])
    np.testing.assert_array_equal(differences, [[-0.5, 0.5], [0.25, 0.25]])


def test_who_invents_a_structure_loses_to_who_sees_that_there_is_none():
    nan = float("nan")
    dice = {
        "careful": [[nan, 0.8, nan, nan], [nan, 0.6, nan, 0.0]],
        "inventive": [[0.0, 0.9, nan, nan], [nan, 0.5, nan, nan]],
    }
    scores = [
        Score(cell, seed, f"s{scan}", 2, value)
        for cell, seeds in dice.items()
        for seed, values in enumerate(seeds)
        for scan, value in enumerate(values)
    ]
    differences, seeds, scans = paired_differences(scores, "careful", "inventive", 2)
    # s2 is left out: nobody ever saw the class there
    assert (seeds, scans) == ([0, 1], ["s0", "s1", "s3"])
    assert differences == pytest.approx(np.array([[1.0, -0.1, 0.0], [0.0, 0.1, -1.0]]))


def test_scans_without_the_class_are_left_out_of_both():
    scores = [*scores_of(SCORES, "new"), *scores_of(SCORES, "old")]

    assert paired_differences(scores, "new", "old", label=2)[2] == ["scan_2"]


def test_other_scans_cannot_be_paired():
    scores = [*scores_of({"a": {1: 0.5}}, "new"), *scores_of({"b": {1: 0.5}}, "old")]

    with pytest.raises(InputError, match="tested on other scans"):
        paired_differences(scores, "new", "old")


def test_with_scans_of_its_own_each_seed_is_paired_by_itself():
    dice = {"new": [{"a": 0.9, "b": 0.5}, {"c": 0.75, "b": 0.25}], "old": [{"a": 0.4, "b": 0.75}, {"c": 0.5, "b": 0.5}]}
    scores = [
        score
        for cell, seeds in dice.items()
        for seed, scans in enumerate(seeds)
        for score in scores_of({scan: {1: value} for scan, value in scans.items()}, cell, seed)
    ]
    differences, seeds, scans = paired_differences(scores, "new", "old")
    assert (seeds, scans) == ([0, 1], ["1. of each seed", "2. of each seed"])
    np.testing.assert_allclose(differences, [[0.5, -0.25], [-0.25, 0.25]])  # a and b; b and c
    with pytest.raises(InputError, match="old, seed 1: tested on other scans than new, seed 1"):
        paired_differences([*scores, *scores_of({"d": {1: 0.5}}, "old", 1)], "new", "old")
    for cell in ("new", "old"):
        scores += scores_of({"d": {1: 0.5}}, cell, 1)
    with pytest.raises(InputError, match="new: tested on 2 scans with seed 0 and on 3 with seed 1"):
        paired_differences(scores, "new", "old")


def test_without_a_common_seed_nothing_can_be_paired():
    scores = [*scores_of({"a": {1: 0.5}}, "new", seed=0), *scores_of({"a": {1: 0.5}}, "old", seed=1)]

    with pytest.raises(InputError, match="no seed in common"):
        paired_differences(scores, "new", "old")
