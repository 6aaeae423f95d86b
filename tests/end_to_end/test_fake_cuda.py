"""Trainers where torch says that there is a GPU: nothing mixes devices, and mixed precision takes its way.

No GPU is needed; tests/fake_cuda.py says what this cannot show.
"""

import os
from unittest import mock

import pytest
import tiny
import torch
from fake_cuda import CUDA, fake_cuda, is_cuda
from tiny import MEAN_TEACHER, SPARSE, Training

from nnunet_gmabs.active.select import STRATEGIES
from nnunet_gmabs.learning import cutmix
from nnunet_gmabs.trainers import mutual_teaching

pytestmark = pytest.mark.slow
FROM_THE_START = {"ramp_start": 0.0}
SETTINGS = {
    SPARSE: {},
    MEAN_TEACHER: {"consistency": FROM_THE_START},
    "nnUNetTrainerMeanTeacherPaper": {},
    "nnUNetTrainerCMEMS": {"mutual": FROM_THE_START},
    "nnUNetTrainerGMABSPaper": {},
    "nnUNetTrainerGMABSMutual": {"consistency": FROM_THE_START, "mutual": FROM_THE_START},
    "nnUNetTrainerGMABSActive": {"consistency": FROM_THE_START, "active": {"expert": "person"}},
}


def life(project, folder, trainer, configuration="3d_fullres"):
    """All that a training does on its device, but for whole epochs: steps, rounds, validation, looks, checkpoints."""
    training = Training(project, folder, trainer, configuration, settings=SETTINGS[trainer])
    training.variables["nnUNet_compile"] = "f"
    with mock.patch.dict(os.environ, training.environment()), tiny.cheap(), fake_cuda():
        from nnunetv2.run.run_training import get_trainer_from_args

        one = get_trainer_from_args(project.number, configuration, 0, trainer, tiny.PLANS, device=torch.device("cuda"))
        one.initialize()
        assert one.grad_scaler is not None and one.device == CUDA
        assert all(is_cuda(p) for network in one.networks().values() for p in network.parameters())
        one.dataloader_train, one.dataloader_val = one.get_dataloaders()
        one.on_epoch_start()
        one.on_train_epoch_start()
        steps(one, 3)
        if hasattr(one, "run_round"):
            one.round, one.round_finished = 1, False
            one.history.append({"epoch": 0})
            one.run_round()
            steps(one, 2)
        with torch.no_grad():
            one.on_validation_epoch_start()
            one.on_validation_epoch_end([one.validation_step(next(one.dataloader_val)) for _ in range(2)])
        if hasattr(one, "look"):
            for strategy in STRATEGIES.values():
                with mock.patch.object(type(one), "strategy", strategy):
                    one.look(one.scans.unlabelled[0])
                    one.proposals(one.scans.unlabelled[:1])
        one.save_checkpoint(str(training.final))
        one.load_checkpoint(str(training.final))
        one.on_epoch_start()
        steps(one, 1)
        one.perform_actual_validation()
        return one


def steps(trainer, number):
    for _ in range(number):
        trainer.train_step(next(trainer.dataloader_train))


@pytest.mark.parametrize("trainer", SETTINGS)
def test_a_whole_life_in_three_dimensions(trainer, project, tmp_path):
    one = life(project.copy(tmp_path / "data"), tmp_path, trainer)
    ratios = {name: value for name, value in one.epoch_means.take().items() if name.startswith("gradient_ratio/")}
    assert all(value == value for value in ratios.values()), "no norm may overflow where the step itself does not"


@pytest.mark.parametrize("trainer", [MEAN_TEACHER, "nnUNetTrainerCMEMS"])
def test_a_whole_life_in_two(trainer, project, tmp_path):
    life(project, tmp_path, trainer, "2d")


def test_what_stays_on_the_cpu_by_mistake_is_noticed(project, tmp_path, monkeypatch):
    original = cutmix.apply_boxes
    monkeypatch.setattr(mutual_teaching.cutmix, "apply_boxes", lambda values, boxes: original(values, boxes.cpu()))
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        life(project, tmp_path, "nnUNetTrainerCMEMS")
