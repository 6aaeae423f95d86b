"""torch.compile, which nnU-Net switches on where there is CUDA: student and teacher compiled, checkpoints plain."""

import functools
import shutil

import pytest
import tiny
import torch
from tiny import Training
from torch._dynamo import OptimizedModule

from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher

pytestmark = pytest.mark.slow


@pytest.fixture
def compiled(monkeypatch):
    """Networks are compiled, on the CPU too."""
    torch._dynamo.reset()
    monkeypatch.setattr(nnUNetTrainerMeanTeacher, "_do_i_compile", lambda self: True)
    with torch._functorch.config.patch(donated_buffer=True):  # as torch has it
        yield
    torch._dynamo.reset()


def test_a_compiled_training_leaves_plain_checkpoints_and_continues(compiled, project, tmp_path, monkeypatch):
    # traced and split into forward and backward as always; only the generated code is left out, for speed
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    training = Training(project, tmp_path / "compiled", settings={"num_epochs": 2})
    training.here()
    content = tiny.load(training.final)
    names = [*content["network_weights"], *content["gmabs"]["networks"]["student"]]
    assert names and not any("_orig_mod" in name for name in names)
    assert tiny.differences(content["network_weights"], content["gmabs"]["networks"]["teacher"]) == []
    plain = Training(project, tmp_path / "plain", settings={"num_epochs": 2})
    monkeypatch.setattr(nnUNetTrainerMeanTeacher, "_do_i_compile", lambda self: False)
    plain.here()
    torch.testing.assert_close(content["network_weights"], tiny.load(plain.final)["network_weights"])
    plain.settings["num_epochs"] = 3
    monkeypatch.setattr(nnUNetTrainerMeanTeacher, "_do_i_compile", lambda self: True)
    plain.here(continue_training=True)  # a checkpoint of a training that was not compiled
    assert tiny.load(plain.final)["current_epoch"] == 3


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_steps_with_generated_code(compiled, project, tmp_path):
    trainer = Training(project, tmp_path).build()
    assert isinstance(trainer.network, OptimizedModule) and isinstance(trainer.teacher, OptimizedModule)
    assert not isinstance(trainer.teacher_module, OptimizedModule)
    loader, _ = trainer.get_dataloaders()
    trainer.network.train()
    for iteration in (1, trainer.num_iterations_per_epoch):  # the code is made in a step that measures no gradients
        trainer.iteration = iteration
        trainer.train_step(next(loader))
    log = trainer.epoch_means.take()
    assert log["loss/consistency"] > 0 and log["gradient_ratio/consistency"] > 0
    student, teacher = (trainer.networks()[name].state_dict() for name in ("student", "teacher"))
    assert tiny.differences(student, teacher) != []
