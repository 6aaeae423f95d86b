"""Every kind of configuration trains, validates and leaves a checkpoint that stock nnU-Net can use."""

import json
from unittest import mock

import pytest
import tiny
import torch
from tiny import MEAN_TEACHER, SPARSE, Training

from nnunet_gmabs.trainers.on_cpu import Conv3dInHalves

pytestmark = pytest.mark.slow


def check(training, scans=3):
    """It has trained its four epochs, and predicted its validation scans with a mean Dice."""
    content = tiny.load(training.final)
    assert content["current_epoch"] == 4
    assert content["gmabs"]["iteration"] == 4 * 3
    assert content["trainer_name"] == "nnUNetTrainer"
    summary = json.loads((training.output / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == scans
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    return content


@pytest.mark.parametrize("trainer", [MEAN_TEACHER, SPARSE])
@pytest.mark.parametrize("configuration", ["2d", "3d_lowres"])
def test_2d_and_3d_lowres(configuration, trainer, project, tmp_path):
    training = Training(project, tmp_path, trainer, configuration)
    training.here()
    check(training)
    assert all(0 <= row["pseudo_dice/student"] <= 1 for row in tiny.read_log(training))


@pytest.mark.parametrize("trainer", [MEAN_TEACHER, SPARSE])
def test_two_channels_and_regions(trainer, regions, tmp_path):
    training = Training(regions, tmp_path, trainer)
    training.here()
    weights = check(training)["network_weights"]
    first = next(iter(weights.values()))
    assert first.shape[1] == 2  # channels
    assert weights["decoder.seg_layers.0.bias"].shape == (2,)  # one output a region, none for background


def test_dense_labels_without_ignore_label(tmp_path):
    project = tiny.make_project(tmp_path, "Dataset104_Dense", dense=True)
    assert "ignore" not in json.loads((project.pre / "dataset.json").read_text())["labels"]
    for trainer in (MEAN_TEACHER, SPARSE):
        training = Training(project, tmp_path / trainer, trainer)
        training.here()
        check(training, scans=4)
        assert all(row["share/labelled_voxels"] == 1 for row in tiny.read_log(training))


@pytest.mark.parametrize("trainer", ["nnUNetTrainerMeanTeacherPaper", "nnUNetTrainerSparseHalfBatch"])
def test_variants(trainer, project, tmp_path):
    training = Training(project, tmp_path, trainer, fold="all")
    training.here()
    check(training)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerGMABSMutual", "nnUNetTrainerCMEMS"])
def test_bfloat16_on_a_cpu(trainer, project, tmp_path):
    training = Training(project, tmp_path, trainer, settings={"cpu_bfloat16": True})
    seen = []
    with mock.patch.object(torch.nn.Conv3d, "forward", autospec=True, side_effect=recording(seen)):
        training.here()
    content = check(training)
    assert torch.bfloat16 in seen
    assert all(value.dtype == torch.float32 for value in content["network_weights"].values())
    assert all(row["loss/supervised"] > 0 for row in tiny.read_log(training))


@pytest.mark.parametrize(
    ("trainer", "networks"),
    [
        (SPARSE, ["student"]),
        (MEAN_TEACHER, ["student", "teacher"]),
        ("nnUNetTrainerCMEMS", ["student", "peer"]),
        ("nnUNetTrainerGMABSMutual", ["student", "teacher"]),
    ],
)
def test_the_log_has_the_pseudo_dice_of_every_network_and_nnunets_that_of_the_one_for_prediction(
    trainer, networks, project, tmp_path
):
    predicts = networks[-1]
    trainer = Training(project, tmp_path, trainer, settings={"inference_network": predicts}).build()
    loader = trainer.get_dataloaders()[1]
    weights = trainer.networks()
    with torch.no_grad():
        for bias, name in enumerate(networks):
            weights[name].decoder.seg_layers[-1].bias[1] += bias  # so that they differ; an untrained teacher is a copy
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(next(loader)) for _ in range(2)])
    dice = {n: v for n, v in trainer.epoch_summary().items() if n.startswith("pseudo_dice/")}
    assert list(dice) == [f"pseudo_dice/{name}" for name in networks]
    assert len({*dice.values()}) == len(networks) and all(0 <= value <= 1 for value in dice.values())
    assert dice[f"pseudo_dice/{predicts}"] == trainer.logger.get_value("mean_fg_dice", -1)


@pytest.mark.parametrize("half", [False, True])
def test_every_network_is_arranged_for_a_cpu_in_single_precision(half, project, tmp_path):
    trainer = Training(project, tmp_path, "nnUNetTrainerGMABSMutual", settings={"cpu_bfloat16": half}).build()
    networks = trainer.networks()
    assert list(networks) == ["student", "teacher", "peer"]
    for name, network in networks.items():
        arranged = [isinstance(m, Conv3dInHalves) for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
        assert any(arranged) is not half, name


def recording(seen):
    """Conv3d.forward that notes what its output is."""
    forward = torch.nn.Conv3d.forward

    def record(self, x):
        output = forward(self, x)
        seen.append(output.dtype)
        return output

    return record


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_of_one_and_odd_batch(batch_size, project, regions, tmp_path):
    for data in (project, regions):
        own = data.copy(tmp_path / data.dataset)
        plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
        plans["configurations"]["3d_fullres"]["batch_size"] = batch_size
        own.edit(f"{tiny.PLANS}.json", **plans)
        training = Training(own, own.folder, fold="all")
        training.here()
        check(training)
        assert sum(row["share/labelled_voxels"] for row in tiny.read_log(training)) > 0
