"""--c with damaged checkpoints, other settings, more epochs; and a new run over an old one."""

import json
import shutil
import signal

import pytest
import tiny
from tiny import SPARSE, Training

from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory):
    """A training that ran through; not to be changed."""
    training = Training(project, tmp_path_factory.mktemp("finished"))
    training.here()
    return training


@pytest.fixture(scope="module")
def stopped(project, tmp_path_factory):
    """The same training, killed in its last epoch: latest, previous and best checkpoint are there."""
    training = Training(project, tmp_path_factory.mktemp("stopped"))
    assert training.in_child(before=die_in_the_last_epoch) == -signal.SIGKILL
    return training


def die_in_the_last_epoch():
    import os

    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse

    original = nnUNetTrainerSparse.train_step

    def train_step(self, batch):
        if self.current_epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch)

    nnUNetTrainerSparse.train_step = train_step


def copy(training, folder, **changes):
    """The same training in another folder, with other settings if wanted."""
    shutil.copytree(training.folder, folder, dirs_exist_ok=True)
    return Training(training.project, folder, settings=changes)


def files(training):
    return {p.name: p.read_bytes() for p in training.output.iterdir() if p.is_file() and "training_log" not in p.name}


def test_every_checkpoint_loads_without_running_code(stopped, finished):
    epochs = {path.name: tiny.load(path)["current_epoch"] for path in stopped.output.glob("*.pth")}
    assert epochs.pop("checkpoint_best.pth") in (1, 2, 3)
    assert epochs == {"checkpoint_latest.pth": 3, "checkpoint_previous.pth": 2}
    assert tiny.load(finished.final)["current_epoch"] == 4


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_truncated_newest_checkpoint_is_named_and_the_previous_one_used(share, stopped, finished, tmp_path):
    training = copy(stopped, tmp_path)
    (training.output / "checkpoint_best.pth").unlink()  # so that the previous one is needed
    latest = training.output / "checkpoint_latest.pth"
    content = latest.read_bytes()
    latest.write_bytes(content[: int(share * len(content))])
    training.here(continue_training=True)
    assert f"{latest}: cannot be read" in training.log()
    assert f"{training.output / 'checkpoint_previous.pth'}: used instead, epoch 2" in training.log()
    assert tiny.differences(tiny.load(training.final), tiny.load(finished.final)) == []


def test_the_furthest_readable_checkpoint_is_used(finished, tmp_path):
    training = copy(finished, tmp_path)
    training.final.write_bytes(b"no checkpoint")
    best = tiny.load(training.output / "checkpoint_best.pth")["current_epoch"]
    training.here(continue_training=True)
    assert f"checkpoint_best.pth: used instead, epoch {best}" in training.log()
    assert tiny.differences(tiny.load(training.final), tiny.load(finished.final)) == []


def test_no_readable_checkpoint_is_an_error_that_changes_none(stopped, tmp_path):
    training = copy(stopped, tmp_path)
    for path in training.output.glob("*.pth"):
        path.write_bytes(b"no checkpoint")
    before = files(training)
    with pytest.raises(InputError, match=r"checkpoint_latest\.pth: cannot be read.*train anew without --c"):
        training.here(continue_training=True)
    assert files(training) == before


def test_other_settings_are_refused_and_shown(stopped, tmp_path):
    training = copy(stopped, tmp_path, initial_lr=0.02, consistency={"weight": 0.25}, seed=3)
    before = files(training)
    with pytest.raises(InputError, match="other settings") as error:
        training.here(continue_training=True)
    for line in ("initial_lr: 0.01 -> 0.02", "consistency.weight: 0.5 -> 0.25", "seed: 0 -> 3"):
        assert line in str(error.value)
    assert str(error.value).count("->") == 3
    assert files(training) == before


def test_fewer_epochs_are_refused(finished, tmp_path):
    training = copy(finished, tmp_path, num_epochs=3)
    with pytest.raises(InputError, match=r"num_epochs: 4 -> 3 \(may only grow\)"):
        training.here(continue_training=True)


def test_more_epochs_continue_a_finished_training(finished, tmp_path):
    training = copy(finished, tmp_path, num_epochs=6, save_every=2)
    training.here(continue_training=True)
    content = tiny.load(training.final)
    assert content["current_epoch"] == 6 and content["gmabs"]["iteration"] == 18
    rows, before = tiny.read_log(training), tiny.read_log(finished)
    assert [row["epoch"] for row in rows] == list(range(6)) and rows[:4] == before
    assert content["gmabs"]["schedule_epochs"] == 4  # schedules keep the length of the start
    assert [row["weight/consistency"] for row in rows[3:]] == [0.5] * 3


def test_a_finished_training_may_be_continued_twice(finished, tmp_path):
    training = copy(finished, tmp_path)
    training.here(continue_training=True)
    training.here(continue_training=True)
    assert tiny.differences(tiny.load(training.final), tiny.load(finished.final)) == []


def test_a_new_run_sets_old_checkpoints_aside(finished, tmp_path):
    training = copy(finished, tmp_path, seed=1)
    old = {path.name: path.read_bytes() for path in training.output.glob("*.pth")}
    training.here()
    aside = training.output / "previous_run"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == old
    assert "moved to previous_run/: checkpoint_final.pth, checkpoint_best.pth" in training.log()
    assert tiny.load(training.final)["gmabs"]["config"]["seed"] == 1
    assert json.loads((training.output / "gmabs.json").read_text())["config"]["seed"] == 1
    assert len(tiny.read_log(training)) == 4


def test_checkpoints_of_an_older_run_are_never_continued(finished, tmp_path):
    training = copy(finished, tmp_path)
    assert training.in_child(before=die_at_once) == -signal.SIGKILL
    training.here(continue_training=True)  # starts anew
    assert tiny.load(training.final)["gmabs"]["iteration"] == 12
    assert training.log().count("\n2") and len(tiny.read_log(training)) == 4


def die_at_once():
    import os

    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse

    nnUNetTrainerSparse.train_step = lambda self, batch: os.kill(os.getpid(), signal.SIGKILL)


def test_checkpoints_of_another_trainer_are_refused(finished, tmp_path):
    sparse = Training(finished.project, tmp_path, SPARSE)
    shutil.copytree(finished.output, sparse.output)
    with pytest.raises(InputError, match="written by nnUNetTrainerMeanTeacher; continue it with -tr nnUNetTrainerMea"):
        sparse.here(continue_training=True)


def test_validation_can_be_repeated_with_the_final_and_with_the_best_checkpoint(finished, tmp_path):
    training = copy(finished, tmp_path)
    shutil.rmtree(training.output / "validation")
    training.here(only_run_validation=True)
    name = "validation/scan_00.nii.gz"
    assert (training.output / name).read_bytes() == (finished.output / name).read_bytes()
    before = files(training)
    training.here(only_run_validation=True, val_with_best=True)
    assert files(training) == before


def test_without_checkpoints_none_is_written(project, tmp_path):
    training = Training(project, tmp_path)
    training.here(disable_checkpointing=True)
    assert not list(training.output.glob("*.pth")) and (training.output / "validation" / "summary.json").is_file()
