"""What a training refuses: clearly, by name, and before it leaves a trace."""

import json

import pytest
import tiny
import torch
from tiny import MEAN_TEACHER, SPARSE, Training

from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow


def traces(training):
    """All that is in nnUNet_results."""
    return list((training.folder / "nnUNet_results").rglob("*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_cuda_without_cuda_is_a_clear_error_that_leaves_nothing_behind(project, tmp_path):
    training = Training(project, tmp_path)
    arguments = training.arguments()
    arguments[arguments.index("cpu")] = "cuda"
    printed = tiny.run_command("nnUNetv2_train", *arguments, environment=training.environment(), expect=1)
    assert "InputError: -device cuda, but torch sees no CUDA device here; use -device cpu" in printed
    assert traces(training) == []


@pytest.mark.parametrize("trainer", [MEAN_TEACHER, SPARSE])
def test_cascades_are_refused_by_name(trainer, project, tmp_path):
    with pytest.raises(NotImplementedError, match=f"{trainer} does not train cascades .3d_cascade_fullres.; use"):
        Training(project, tmp_path, trainer, "3d_cascade_fullres").here()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_epoch": 5}, r"settings\.json: unknown setting 'num_epoch'; the nearest valid one is 'num_epochs'"),
        ({"consistency": {"wieght": 1}}, r"unknown setting 'consistency\.wieght'; .* is 'consistency\.weight'"),
        ({"num_epochs": "many"}, "num_epochs is 'many'"),
        ({"initial_lr": -1.0}, "initial_lr is -1.0, outside"),
        ({"consistency": {"form": "hard"}}, "consistency.form is 'hard'; valid are 'confident', 'mse'"),
        ({"teacher": None}, f"{MEAN_TEACHER} needs the setting teacher"),
        ({"inference_network": "peer"}, f"'peer'; {MEAN_TEACHER} predicts with one of 'student', 'teacher'"),
    ],
)
def test_wrong_settings_are_named_and_leave_nothing_behind(settings, message, project, tmp_path):
    training = Training(project, tmp_path, settings=settings)
    with pytest.raises(InputError, match=message):
        training.here()
    assert traces(training) == []


def test_a_settings_file_that_is_not_there_is_named(project, tmp_path):
    training = Training(project, tmp_path, variables={"nnUNet_gmabs_config": str(tmp_path / "nowhere.yaml")})
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        training.here()
    assert traces(training) == []


def test_settings_of_the_data_set_are_read_and_those_of_the_environment_win(project, tmp_path):
    own = project.copy(tmp_path)
    (own.pre / "gmabs.yaml").write_text("seed: 5\nnum_epochs: 7\nteacher:\n  max_decay: 0.5\n")
    trainer = Training(own, tmp_path).build()
    assert trainer.config.seed == 5 and trainer.config.teacher.max_decay == 0.5
    assert trainer.num_epochs == tiny.SETTINGS["num_epochs"]
    assert trainer.num_iterations_per_epoch == 3 and trainer.save_every == 1


def test_a_configuration_that_is_not_preprocessed_is_refused_by_name(project, tmp_path):
    own = project.copy(tmp_path)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["data_identifier"] = "elsewhere"
    own.edit(f"{tiny.PLANS}.json", **plans)
    with pytest.raises(InputError, match="elsewhere: not there; run gmabs prepare -c 3d_fullres"):
        Training(own, tmp_path).here()
