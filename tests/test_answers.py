"""What a training makes of an expert's answers: a trainer without networks, whose data set is files alone."""

import json
from types import SimpleNamespace
from unittest import mock

import pytest
from asked import PLANES, make_raw, request

from nnunet_gmabs.annotation.experts import Folder, Simulated
from nnunet_gmabs.annotation.rounds import write_round
from nnunet_gmabs.data.streams import scans_of_fold
from nnunet_gmabs.trainers import answers
from nnunet_gmabs.trainers.ranks import Ranks
from nnunet_gmabs.trainers.variants import nnUNetTrainerGMABSActive

SCANS = [f"scan_{number:02d}" for number in range(6)]
LABELLED = SCANS[:3]
SPLITS = [{"train": ["scan_00"], "val": ["scan_01"]}]  # scan_02 is labelled, and kept for a test


@pytest.fixture
def labelled(monkeypatch):
    """Scans that are labelled on the training grid; a test may change it."""
    now = [*LABELLED]
    monkeypatch.setattr(answers, "labelled_identifiers", lambda _, __, scans: [i for i in scans if i in now])
    monkeypatch.setattr(answers, "labelled_scans", lambda _: (SCANS, now))
    monkeypatch.setattr(answers, "preprocessed_scans", lambda _: SCANS)
    return now


@pytest.fixture
def trainer(tmp_path, labelled):
    """Begun with LABELLED."""
    one = object.__new__(nnUNetTrainerGMABSActive)
    one.__dict__ |= {
        "ranks": Ranks(),
        "scans": scans_of_fold(SCANS, LABELLED, SPLITS, 0, "splits_final.json"),
        "raw": make_raw(tmp_path, scans=6),
        "output_folder": str(tmp_path / "fold_0"),
        "preprocessed_dataset_folder": str(tmp_path / "prepared"),
        "print_to_log_file": lambda *_: None,
        "asked": [],
        "answered": [],
        "unlabelled_before": [],
        "merged": set(),
        "asks_due": 0,
        "first_round": 0,
        "current_epoch": 0,
        "schedule_epochs": 20,
    }
    one.config = nnUNetTrainerGMABSActive.config
    one.expert = Folder(one.raw)
    (tmp_path / "fold_0").mkdir()
    return one


@pytest.fixture
def arrive(monkeypatch, labelled):
    """Has answers arrive in some scans, be merged, and reach the training grid in the folder `prepared`."""

    def reach(_, scans):
        labelled.extend(scans)
        return ["prepared"]

    def answer(*scans, follow=reach):
        sources = [SimpleNamespace(identifier=scan) for scan in scans]
        monkeypatch.setattr(Folder, "poll", lambda _: [SimpleNamespace(source=source) for source in sources])
        monkeypatch.setattr(answers, "merge", lambda *_: None)
        monkeypatch.setattr(answers, "follow_labels", follow)

    return answer


def test_only_scans_without_labels_join_the_labelled_ones(trainer, arrive):
    arrive("scan_00", "scan_01", "scan_02", "scan_04")
    assert trainer.take_answers() == ["scan_00", "scan_01", "scan_02", "scan_04"]
    assert trainer.answered == ["scan_04"]
    assert trainer.scans.labelled == ["scan_00", "scan_04"], "scan_02 is in no part of the fold, and stays out"
    assert trainer.scans.validation == ["scan_01"] and trainer.scans.unlabelled == ["scan_03", "scan_05"]


def test_an_answer_in_a_folder_that_does_not_follow_is_told_and_labels_no_scan(trainer, arrive):
    """As where stock nnU-Net has preprocessed the data."""
    said = []
    trainer.print_to_log_file = said.append
    trainer.plans_manager = SimpleNamespace(dataset_name="Dataset004_X")
    arrive("scan_04", follow=lambda *_: [])
    assert trainer.take_answers() == [] and trainer.answered == []
    assert any(
        "not all of them on the training grid" in line and "gmabs prepare -d Dataset004_X" in line for line in said
    )


def test_answers_that_did_not_reach_the_training_grid_are_looked_at_again(trainer, arrive, labelled):
    arrive("scan_04", follow=mock.Mock(side_effect=OSError("the disk is full")))
    assert trainer.take_answers() == [] and trainer.answered == []
    arrive("scan_04", follow=mock.Mock(side_effect=RuntimeError("blosc2 could not write")))
    assert trainer.take_answers() == [] and trainer.answered == []
    follow = mock.Mock(side_effect=lambda _, scans: labelled.extend(scans) or ["prepared"])
    arrive(follow=follow)
    assert trainer.take_answers() == ["scan_04"] == trainer.answered
    assert trainer.take_answers() == []
    follow.assert_called_once_with(trainer.raw, ["scan_04"])


def test_a_round_taken_back_while_no_training_ran_labels_no_scan_of_the_continued_one(trainer, labelled):
    trainer.answered, trainer.unlabelled_before = ["scan_03", "scan_04"], ["scan_05"]
    labelled += ["scan_04", "scan_05"]
    trainer.restore_answers()
    assert trainer.answered == ["scan_04", "scan_05"]


def test_a_continued_training_knows_no_answer_that_came_after_its_checkpoint(trainer):
    """The simulated expert gives it again; until then the scan is one without labels."""
    (trainer.raw.folder / "labelsTr_dense").mkdir()
    trainer.expert = Simulated(trainer.raw, trainer.answers)
    trainer.answers.mkdir()
    names = {scan: [f"{scan}_expert.b2nd", f"{scan}.nii.gz"] for scan in ("scan_03", "scan_04")}
    for name in sum(names.values(), []):
        (trainer.answers / name).touch()
    trainer.answered = ["scan_03"]
    trainer.asked = [{"scans": [{"identifier": "scan_03", "planes": []}]}]
    trainer.restore_answers()
    assert sorted(path.name for path in trainer.answers.iterdir()) == sorted(names["scan_03"])


@pytest.mark.parametrize("told", [True, False])
def test_rounds_asked_after_the_checkpoint_count_as_far_as_they_fell_due(told, trainer):
    """20 epochs, questions each 2 % from 8 % on: after 4 epochs 7 are due, after 5 epochs 9, and they are one round."""
    trainer.current_epoch, trainer.asks_due = 4, 7
    for _ in range(2):
        write_round(trainer.raw, request({"scan_03": PLANES}, model=trainer.output_folder))
    if told:
        rounds = [{"round": 0, "epochs_trained": 4}, {"round": 1, "epochs_trained": 5}]
        trainer.asked_file.write_text(json.dumps(rounds))
    trainer.asked = [{"round": 0, "scans": []}]
    trainer.adopt_rounds()
    assert [(one["round"], one.get("epochs_trained")) for one in trainer.asked[1:]] == [(1, 5 if told else 4)]
    assert trainer.asks_due == (trainer.questions_until(5 / 20) if told else 8)
