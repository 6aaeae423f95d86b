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
