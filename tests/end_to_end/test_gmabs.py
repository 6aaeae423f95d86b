"""The specialist asks the generalist: rounds in a training, what a kill leaves, what stock nnU-Net sees."""

import os
import shutil
import signal

import pytest
import tiny
import torch
from tiny import Training

from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow
GMABS = "nnUNetTrainerGMABS"
# rounds at the end of epochs 1, 2 and 3 of 4
SETTINGS = tiny.MEAN_TEACHER_SETTINGS | {"relabel": {"first": 0.25, "first_iterations": 0, "every": 0.25, "until": 0.8}}


def training(project, folder, trainer=GMABS, **changes):
    return Training(project, folder, trainer, settings=tiny.merge(SETTINGS, changes))


@pytest.fixture(scope="module")
def uninterrupted(project, tmp_path_factory):
    one = training(project, tmp_path_factory.mktemp("gmabs"))
    one.here()
    return one


def test_rounds_come_when_they_are_due_and_are_told(uninterrupted):
    log = uninterrupted.log()
    assert [f"relabelled, round {n}:" in log for n in (1, 2, 3, 4)] == [True, True, True, False]
    rows = tiny.read_log(uninterrupted)
    assert [row["round/scans"] for row in rows[:3]] == [7.0] * 3
    assert rows[0]["weight/noise_tolerant"] == 0 < rows[1]["weight/noise_tolerant"]
    assert rows[0]["loss/noise_tolerant"] == 0 < rows[1]["loss/noise_tolerant"]
    assert 0 <= rows[2]["round/changed"] <= 1


def test_only_the_newest_round_is_kept_with_all_training_scans(uninterrupted):
    folder = uninterrupted.output / "pseudo_labels"
    assert [path.name for path in folder.iterdir()] == ["round_003"]
    assert len(pseudo_labels.finished(folder, 3)) == 7
    assert len(list(uninterrupted.output.glob("prompts_round_*.png"))) <= 3


def test_expert_voxels_keep_the_experts_label(uninterrupted):
    from nnunet_gmabs.data.expert import decode, expert_file, read_expert

    folder = uninterrupted.output / "pseudo_labels"
    found = 0
    for identifier in pseudo_labels.finished(folder, 3):
        file = expert_file(uninterrupted.project.pre, "nnUNetPlans_3d_fullres", identifier)
        expert = decode(read_expert(file)[0][0])
        pseudo = pseudo_labels.newest_pseudo_labels(folder, identifier, expert.shape)[:]
        drawn = expert != 3
        assert (pseudo[drawn] == expert[drawn]).all()
        assert set(pseudo.ravel().tolist()) <= {0, 1, 2}
        found += drawn.sum()
    assert found > 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def patch(owner, name, moment):
    setattr(owner, name, moment(getattr(owner, name)))


def in_the_middle_of_a_round():
    from nnunet_gmabs.data import pseudo_labels as module

    def moment(original):
        def write(folder, number, identifier, *more):
            if number == 2 and len(module.finished(folder, 2)) == 3:
                die()
            original(folder, number, identifier, *more)

        return write

    patch(module, "write_pseudo_labels", moment)


def after_a_round_before_its_checkpoint():
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS

    patch(
        nnUNetTrainerGMABS,
        "save_latest",
        lambda original: (
            lambda self: (
                die() if self.round == 2 and self.round_finished and self.current_epoch == 2 else original(self)
            )
        ),
    )


def while_an_old_round_is_deleted():
    def moment(original):
        def rmtree(path, *more, **options):
            original(path, *more, **options)
            if "round_001" in str(path):
                die()

        return rmtree

    patch(shutil, "rmtree", moment)


@pytest.mark.parametrize(
    "moment", [in_the_middle_of_a_round, after_a_round_before_its_checkpoint, while_an_old_round_is_deleted]
)
def test_interrupted_and_continued_equals_uninterrupted(moment, uninterrupted, project, tmp_path):
    one = training(project, tmp_path)
    assert one.in_child(moment) == -signal.SIGKILL
    assert not one.final.exists()
    one.here(continue_training=True)
    assert tiny.differences(tiny.load(one.final), tiny.load(uninterrupted.final)) == []
    for identifier in pseudo_labels.finished(one.output / "pseudo_labels", 3):
        paths = [t.output / "pseudo_labels" / "round_003" / f"{identifier}.b2nd" for t in (one, uninterrupted)]
        a, b = (torch.from_numpy(pseudo_labels.read_pseudo_labels(path)[:]) for path in paths)
        assert torch.equal(a, b)


def test_a_new_run_does_not_learn_from_an_older_ones_labels(project, tmp_path):
    one = training(project, tmp_path, num_epochs=1)
    pseudo_labels.round_folder(one.output / "pseudo_labels", 7).mkdir(parents=True)
    pseudo_labels.complete_round(one.output / "pseudo_labels", 7)
    one.here()
    assert pseudo_labels.newest_round(one.output / "pseudo_labels") is None


@pytest.mark.parametrize("trainer", ["NoGeneralist", "NoDenoise", "NoClip"])
def test_ablations_train(trainer, project, tmp_path):
    one = training(project, tmp_path, GMABS + trainer, num_epochs=2)
    one.here()
    assert one.final.is_file()
    assert ("share/doubtful" in tiny.read_log(one)[1]) == (trainer != "NoDenoise")


def test_a_generalist_that_cannot_be_used_stops_the_training_at_its_start(project, tmp_path):
    one = training(project, tmp_path, generalist={"checkpoint": "/not/there.safetensors"})
    with pytest.raises(InputError, match="/not/there.safetensors"):
        one.build()
