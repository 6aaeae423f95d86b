"""The real nnUNetv2_train with our trainers: what it leaves behind, and what a real kill does not spoil."""

import json
import os
import pickle
import random
import time

import pytest
import tiny
from tiny import Training

pytestmark = pytest.mark.slow
NAMES = ["mean teacher", "sparse, a data worker"]


@pytest.mark.parametrize("name", NAMES)
def test_nnunets_command_trains_and_validates(name, commands):
    training, printed = commands[name]
    assert "Mean Validation Dice" in printed.result()
    summary = json.loads((training.output / "validation" / "summary.json").read_text())
    assert [os.path.basename(case["reference_file"]) for case in summary["metric_per_case"]] == [
        "scan_00.nii.gz",
        "scan_01.nii.gz",
        "scan_02.nii.gz",
    ]
    assert sorted(path.name for path in training.output.glob("checkpoint*")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_settings_log_and_picture_are_written(name, commands):
    training, printed = commands[name]
    printed.result()
    record = json.loads((training.output / "gmabs.json").read_text())
    assert record["trainer"] == training.trainer
    assert record["config"] == tiny.merge(record["config"], tiny.SETTINGS)
    assert record["versions"].keys() >= {"nnunet_gmabs", "torch", "python"}
    rows = tiny.read_log(training)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    expected = {"loss/supervised", "weight/supervised", "share/labelled_voxels"}
    if training.trainer == tiny.MEAN_TEACHER:
        expected |= {
            "loss/consistency",
            "weight/consistency",
            "gradient_ratio/consistency",
            "pseudo_dice/teacher",
            "pseudo_dice/student",
        }
    for row in rows:
        assert row.keys() >= expected
        assert all(value == value for value in row.values()), row  # no NaN
        assert 0 < row["share/labelled_voxels"] < 1
        assert row.get("gradient_ratio/consistency", 1) > 0
    picture = (training.output / "gmabs_progress.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    steps, arguments = pickle.loads((training.output / "postprocessing.pkl").read_bytes())
    assert len(steps) == len(arguments)
    kept = [one["labels_or_regions"] for one in arguments]
    assert f"keeps the largest part of classes {kept or 'none'}" in training.log()
    last = tiny.load(training.final)["logging"]["dice_per_class_or_region"][-1]
    told = [
        f"WARNING: class {label} has a pseudo Dice of {dice:.2f}" in training.log()
        for label, dice in enumerate(last, 1)
    ]
    assert told == [dice < 0.2 for dice in last]


def test_mean_teacher_ramps_its_consistency_up(trained):
    weights = [row["weight/consistency"] for row in tiny.read_log(trained)]
    assert weights == sorted(weights) and weights[0] < 0.1 < weights[-1] == 0.5


def test_a_command_killed_at_a_random_moment_and_continued_equals_an_uninterrupted_one(project, trained, tmp_path):
    training = Training(project, tmp_path)
    process = tiny.start(*tiny.executable("nnUNetv2_train"), *training.arguments(), environment=training.environment())
    for line in process.stdout:
        if "Epoch 1" in line:  # one checkpoint is there
            break
    time.sleep(random.Random(0).uniform(0, 3))
    tiny.kill(process)
    process.communicate()
    assert process.returncode == -9 and not training.final.exists()
    assert "Mean Validation Dice" in training.command("--c")
    assert tiny.differences(tiny.load(training.final), tiny.load(trained.final)) == []
