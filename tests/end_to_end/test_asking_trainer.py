"""A training that asks: a simulated expert at once, a person some day; nothing is lost by a kill."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from unittest import mock

import asked as asked_rounds
import numpy as np
import pytest
import raw_data
import tiny
import torch
from tiny import Training

from nnunet_gmabs.active.select import ChosenScan
from nnunet_gmabs.annotation.experts import Folder
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Answer, existing_rounds, read_request, write_answer
from nnunet_gmabs.cli import main
from nnunet_gmabs.data.expert import decode, expert_file, read_expert
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.page import scans
from nnunet_gmabs.report.page.asked_by_training import asked_by
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.page.trainings import read_training
from nnunet_gmabs.trainers import asking, relabelling
from nnunet_gmabs.trainers.base import nnUNetTrainerSparse

pytestmark = pytest.mark.slow
ACTIVE = "nnUNetTrainerGMABSActive"
# asked at the end of epochs 1, 2 and 3 of 4: one scan, one scan, and the budget is spent
SETTINGS = tiny.MEAN_TEACHER_SETTINGS | {
    "relabel": {"first": 0.5, "first_iterations": 0, "every": 0.5, "until": 0.5},
    "generalist": {"name": "walker"},
    "active": {
        "expert": "simulated",
        "strategy": "uncertainty-diverse",
        "scans_per_round": 1,
        "budget_planes": 6,
        "first": 0.25,
        "every": 0.25,
    },
}


def training(project, folder, **changes):
    return Training(project, folder, ACTIVE, settings=tiny.merge(SETTINGS, changes))


@pytest.fixture(scope="module")
def oracle(project, tmp_path_factory):
    return with_dense_labels(project, tmp_path_factory.mktemp("oracle"))


def with_dense_labels(project, folder):
    """A copy of the data set with dense labels of its unlabelled scans, too."""
    copy = project.copy(folder)
    raw_data.write_truth(copy.raw)
    return copy


@pytest.fixture(scope="module")
def uninterrupted(oracle, tmp_path_factory):
    one = training(oracle, tmp_path_factory.mktemp("active"))
    one.here()
    return one


def asked(one):
    return json.loads((one.output / "asked.json").read_text())


def test_scans_are_asked_for_until_the_budget_is_spent_and_join_the_labelled_ones(uninterrupted):
    rounds = asked(uninterrupted)
    scans = [scan["identifier"] for request in rounds for scan in request["scans"]]
    assert len(rounds) == 2 and len(set(scans)) == 2
    assert all(len(scan["planes"]) == 3 and scan["reason"] for request in rounds for scan in request["scans"])
    assert "answered:" in uninterrupted.log() and "5 scans are labelled now" in uninterrupted.log()
    rows = tiny.read_log(uninterrupted)
    assert rows[1]["round/scans"] == 7


def test_a_simulated_answer_is_what_the_dense_labels_say_on_the_planes_asked_for(uninterrupted):
    raw = RawFolder(uninterrupted.project.raw)
    for request in asked(uninterrupted):
        for scan in request["scans"]:
            name = scan["identifier"]
            dense, _ = raw.read_labels(raw.label_path(name, "labelsTr_dense"))
            answer, _ = raw.read_labels(uninterrupted.output / "expert" / raw.label_path(name).name)
            expected = np.full_like(answer, 3)
            for plane in scan["planes"]:
                place = [slice(None)] * 3
                place[plane["axis"]] = plane["index_orig"]
                expected[tuple(place)] = dense[tuple(place)]
            np.testing.assert_array_equal(answer, expected)
            assert (raw.read_labels(raw.label_path(name))[0] == 3).all()  # labelsTr belongs to people
            labels = decode(read_expert(uninterrupted.output / "expert" / f"{name}_expert.b2nd")[0][0])
            assert (labels != 3).sum() > 0


def test_the_report_tells_after_which_epoch_a_simulated_expert_was_asked_and_has_the_proposals(uninterrupted):
    raw, damaged = RawFolder(uninterrupted.project.raw), Damaged()
    found = asked_by(raw, read_training(uninterrupted.output, damaged), 2.0, damaged)
    assert damaged.messages == [] and found.simulated
    assert [one.epochs_trained for one in found.rounds] == [1, 2] and (found.done, found.planes) == (6, 6)
    assert found.budget == 6 and all(np.isfinite(one.agreement) for one in found.rounds[1:])
    for one in found.rounds:
        [scan] = one.round.scans
        proposal, _ = raw.read_labels(one.round.folder / scan.asked.proposal)
        assert proposal.shape == raw.read_image(scan.asked.identifier)[0].shape[1:] and proposal.max() < 3


def test_the_report_knows_that_a_simulated_expert_drew_in_a_scan_that_has_no_label_file(uninterrupted):
    raw, damaged = RawFolder(uninterrupted.project.raw), Damaged()
    one = read_training(uninterrupted.output, damaged)
    with mock.patch.object(scans, "MOST_A_TRAINING", 7):
        pictures = scans.pseudo_pictures(raw, uninterrupted.project.pre, one, {1: "left", 2: "right"}, damaged)
    unlabelled = [picture.identifier for picture in pictures if "unlabelled scan" in picture.note]
    drawn = {"scan_00", "scan_01", "scan_02"} | {s["identifier"] for r in asked(uninterrupted) for s in r["scans"]}
    assert len(pictures) == 7 and damaged.messages == []
    assert unlabelled == [p.identifier for p in pictures][:2] and not drawn & set(unlabelled)


def test_a_new_run_forgets_what_an_older_one_asked(uninterrupted, oracle, tmp_path):
    one = training(oracle, tmp_path, num_epochs=1)
    shutil.copytree(uninterrupted.output / "expert", one.output / "expert")
    shutil.copy(uninterrupted.output / "asked.json", one.output)
    one.here()
    assert not (one.output / "asked.json").exists() and not (one.output / "expert").exists()


def test_a_strategy_without_a_model_gives_no_empty_proposal(project, tmp_path):
    own = project.copy(tmp_path / "data")
    active = {"expert": "person", "strategy": "cold-start", "budget_planes": 3}
    training(own, tmp_path, active=active, num_epochs=2).here()
    assert read_request(own.raw, 0).scans[0].proposal is None


@pytest.mark.parametrize(("strategy", "predicted"), [("foreground-random", 1), ("random", 0), ("uncertainty", 4)])
def test_only_what_the_strategy_needs_is_predicted(strategy, predicted, project, tmp_path):
    """Of four unlabelled scans one is chosen; what is scored is predicted once more where it is chosen."""
    active = {"expert": "person", "strategy": strategy, "budget_planes": 3}
    one = training(project.copy(tmp_path / "data"), tmp_path, active=active).build()
    with mock.patch.object(one, "probs", wraps=one.probs) as probs:
        one.ask()
    scans = [call.args[1] for call in probs.call_args_list]
    assert len(set(scans)) == predicted and len(scans) == (predicted if predicted < 2 else predicted + 1)
    assert len(one.asked) == 1


def test_a_scan_that_waits_for_an_answer_is_as_good_as_labelled(project, tmp_path):
    active = {"expert": "person", "strategy": "cold-start", "budget_planes": 6}
    one = training(project.copy(tmp_path / "data"), tmp_path, active=active).build()
    one.ask()
    (first,) = [scan["identifier"] for scan in one.asked[0]["scans"]]
    with mock.patch.object(asking, "select_scans", wraps=asking.select_scans) as select:
        one.ask()
    known = select.call_args.args[6]
    assert len(known) == len(one.scans.labelled) + 1
    assert any(np.array_equal(one.features(first), row) for row in known)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after_an_answer_before_its_checkpoint():
    from nnunet_gmabs.trainers.variants import nnUNetTrainerGMABSActive as trainer

    original = trainer.take_answers
    trainer.take_answers = lambda self: (original(self), die())[0] if len(self.asked) == 2 else original(self)


def after_an_epochs_checkpoint_before_asking():
    from nnunet_gmabs.trainers.variants import nnUNetTrainerGMABSActive as trainer

    original = trainer.ask_and_listen
    trainer.ask_and_listen = lambda self: die() if self.current_epoch == 2 else original(self)


@pytest.mark.parametrize("moment", [after_an_answer_before_its_checkpoint, after_an_epochs_checkpoint_before_asking])
def test_interrupted_and_continued_equals_uninterrupted(moment, uninterrupted, oracle, tmp_path):
    one = training(oracle, tmp_path)
    assert one.in_child(moment) == -signal.SIGKILL
    one.here(continue_training=True)
    a, b = tiny.load(one.final), tiny.load(uninterrupted.final)
    for content in (a, b):  # times and folders differ
        for request in content["gmabs"]["asking"]["asked"]:
            request["created"] = request["model"] = ""
    assert tiny.differences(a, b) == []


def test_a_resume_does_not_relabel_a_scan_that_was_answered_since_a_round_without_it(oracle, tmp_path):
    """One round, after epoch 1, of the labelled scans alone; scans answered since become labelled."""
    relabel = {"first": 0.25, "every": 1.0, "until": 0.8, "max_unlabelled": 0}
    one, other = (training(oracle, tmp_path / name, relabel=relabel) for name in ("one", "other"))
    one.here()
    step = nnUNetTrainerSparse.train_step

    def interrupted(trainer, batch):
        if trainer.iteration == 7:
            raise KeyboardInterrupt
        return step(trainer, batch)

    with mock.patch.object(nnUNetTrainerSparse, "train_step", interrupted), pytest.raises(KeyboardInterrupt):
        other.here()
    other.here(continue_training=True)
    a, b = tiny.load(one.final)["gmabs"], tiny.load(other.final)["gmabs"]
    assert len(a["asking"]["answered"]) == 2 and "lacks" not in other.log()
    assert tiny.differences(a["networks"], b["networks"]) == []
    assert a["rounds"]["scans_of_round"] == ["scan_00", "scan_01", "scan_02"]


def test_a_checkpoint_of_a_version_that_did_not_store_a_rounds_scans_is_continued(oracle, tmp_path):
    one = training(oracle, tmp_path, num_epochs=2)
    one.here()
    content = tiny.load(one.final)
    del content["gmabs"]["rounds"]["scans_of_round"]
    torch.save(content, one.final)
    replace(one, settings=one.settings | {"num_epochs": 3}).here(continue_training=True)
    assert tiny.load(one.final)["current_epoch"] == 3 and "lacks" not in one.log()


def test_a_training_in_which_nobody_will_be_asked_says_so_at_its_start(uninterrupted, oracle, tmp_path):
    for name, active in (("late", {"first": 0.8, "until": 0.9}), ("poor", {"budget_planes": 2})):
        one = training(oracle, tmp_path / name, active=active, num_epochs=2)
        one.here()
        log = one.log()
        assert log.index("WARNING: nobody will be asked") < log.index("Epoch 0") and "asked round" not in log
        assert all(f"active.{setting} ({value})" in log for setting, value in active.items())
    assert "WARNING: nobody will be asked" not in uninterrupted.log()


def test_a_person_who_was_asked_before_a_kill_is_not_asked_again(project, tmp_path):
    own = project.copy(tmp_path / "data")
    training(own, tmp_path / "another", active={"expert": "person"}, num_epochs=2).here()  # asks round 0
    one = training(own, tmp_path, active={"expert": "person"})
    assert one.in_child(after_an_answer_before_its_checkpoint) == -signal.SIGKILL
    assert existing_rounds(own.raw) == [0, 1, 2]
    one.here(continue_training=True)
    assert existing_rounds(own.raw) == [0, 1, 2]
    assert [request["round"] for request in tiny.load(one.final)["gmabs"]["asking"]["asked"]] == [1, 2]


def test_lost_answers_of_a_simulated_expert_are_given_again(uninterrupted, oracle, tmp_path):
    one = training(oracle, tmp_path, num_epochs=2)
    one.here()
    name = asked(one)[0]["scans"][0]["identifier"]
    before = (one.output / "expert" / f"{name}_expert.b2nd").read_bytes()
    for path in (one.output / "expert").iterdir():
        path.unlink()
    longer = replace(one, settings=one.settings | {"num_epochs": 3})
    longer.here(continue_training=True)
    assert (one.output / "expert" / f"{name}_expert.b2nd").read_bytes() == before


def answer_first_question(raw):
    """Class 1 everywhere on the planes asked for; the scan."""
    scan = read_request(raw.folder, 0).scans[0]
    image, properties = raw.read_image(scan.identifier)
    labels = np.full(image.shape[1:], 3, np.uint8)
    planes = tuple(plane.plane for plane in scan.planes)
    for axis, index in planes:
        labels[tuple(index if a == axis else slice(None) for a in range(3))] = 1
    write_answer(raw, 0, Answer(scan.identifier, planes, "somebody"), labels, properties)
    return scan.identifier


def test_what_was_merged_while_no_training_ran_is_learned_from_by_the_continued_one(project, tmp_path):
    own = project.copy(tmp_path / "data")
    active = {"expert": "person", "strategy": "foreground-random", "budget_planes": 3}
    one = training(own, tmp_path, active=active, num_epochs=2)
    one.here()
    name = answer_first_question(RawFolder(own.raw))
    with mock.patch.dict(os.environ, own.variables()):
        assert main(["merge", "-d", own.number]) == 0
    replace(one, settings=one.settings | {"num_epochs": 3}).here(continue_training=True)
    assert [one.log().count(f"{n} labelled scans, {7 - n} unlabelled ones") for n in (3, 4)] == [1, 1]
    assert tiny.load(one.final)["gmabs"]["asking"]["answered"] == [name]


@pytest.mark.parametrize("merged_by", ["the training", "gmabs merge"])
def test_a_persons_answer_joins_the_labelled_scans_while_the_training_runs(merged_by, project, tmp_path):
    own = project.copy(tmp_path / "data")
    one = training(own, tmp_path, active={"expert": "person", "strategy": "foreground-random"})
    raw = RawFolder(own.raw)
    answered = []

    def answer_between_epochs(trainer_class):
        original = trainer_class.on_epoch_start

        def on_epoch_start(self):
            original(self)
            if self.current_epoch == 2 and not answered:
                answered.append(answer_first_question(raw))
                if merged_by == "gmabs merge":
                    assert main(["merge", "-d", own.number]) == 0

        return mock.patch.object(trainer_class, "on_epoch_start", on_epoch_start)

    from nnunet_gmabs.trainers.variants import nnUNetTrainerGMABSActive

    with answer_between_epochs(nnUNetTrainerGMABSActive):
        one.here()
    assert existing_rounds(own.raw) == [0, 1]
    [name] = answered
    assert f"answered: {name}; 4 scans are labelled now" in one.log()
    merged, _ = raw.read_labels(raw.label_path(name))
    assert set(np.unique(merged).tolist()) == {1, 3}
    labels = decode(read_expert(expert_file(own.pre, "nnUNetPlans_3d_fullres", name))[0][0])
    assert (labels == 1).sum() > 0
    assert not (one.output / "expert").exists()


def test_without_dense_labels_no_expert_can_be_simulated(project, tmp_path):
    with pytest.raises(InputError, match="labelsTr_dense: no such folder"):
        training(project, tmp_path).build()


def test_an_answer_that_cannot_be_read_does_not_end_the_training(project, tmp_path):
    own = project.copy(tmp_path / "data")
    one = training(own, tmp_path, active={"expert": "person", "strategy": "foreground-random"})
    with mock.patch.object(Folder, "poll", side_effect=InputError("answers/scan_03.json: not usable")):
        one.here()
    assert one.final.is_file()
    assert "WARNING: answers were not taken; they are looked at again later: answers/scan_03.json" in one.log()


def test_a_disk_that_says_no_is_told_before_the_training_and_does_not_end_it_later(project, tmp_path):
    own = project.copy(tmp_path / "data")
    one = training(own, tmp_path, active={"expert": "person", "strategy": "random"})
    read_only = mock.patch.object(os, "access", lambda path, mode: not (mode & os.W_OK and own.raw in path.parents))
    (own.raw / "gmabs").mkdir(exist_ok=True)
    with read_only, pytest.raises(InputError, match="gmabs: may not be written to; allow it"):
        one.build()
    trainer = one.build()
    full = OSError(errno.ENOSPC, "No space left on device", "request.json")
    with mock.patch.object(Folder, "ask", side_effect=full), mock.patch.object(Folder, "poll", side_effect=full):
        trainer.ask()
        assert trainer.take_answers() == []
    log = one.log()
    assert "WARNING: nobody was asked" in log and "WARNING: answers were not taken" in log


def test_an_answer_that_contradicts_what_was_drawn_keeps_no_other_scan_waiting(project, tmp_path):
    own = project.copy(tmp_path / "data")
    raw = RawFolder(own.raw)
    asked_rounds.ask(raw, {name: raw_data.FIRST_PLANES for name in ("scan_03", "scan_04")})
    asked_rounds.answer(raw, 0, "scan_03", raw_data.FIRST_PLANES)
    one = training(own, tmp_path, active={"expert": "person"})
    trainer = one.build()
    with mock.patch.dict(os.environ, own.variables()):
        assert trainer.take_answers() == ["scan_03"]
        # the expert opens the scan again and corrects it; and finishes the other one
        corrected = np.where(asked_rounds.drawn("scan_03", raw_data.FIRST_PLANES) == 3, 3, 2)
        asked_rounds.answer(raw, 0, "scan_03", raw_data.FIRST_PLANES, corrected)
        asked_rounds.answer(raw, 0, "scan_04", raw_data.FIRST_PLANES)
        assert trainer.take_answers() == ["scan_04"]
        assert trainer.take_answers() == []
    assert {"scan_03", "scan_04"} < set(trainer.scans.labelled)
    log = one.log()
    assert log.count("WARNING: what was drawn in scan_03 was not taken; it is looked at again later") == 2
    assert "answers contradict what was drawn earlier" in log and "scan_04 was not taken" not in log


def test_a_scan_that_waits_for_an_answer_in_another_round_is_not_asked_for_again(project, tmp_path):
    own = project.copy(tmp_path / "data")
    raw = RawFolder(own.raw)
    asked_rounds.ask(raw, {name: raw_data.FIRST_PLANES for name in ("scan_03", "scan_05", "scan_06")})
    one = training(own, tmp_path, active={"expert": "person", "strategy": "random", "scans_per_round": 3})
    trainer = one.build()
    with mock.patch.dict(os.environ, own.variables()):
        trainer.ask()
        assert [scan.identifier for scan in read_request(raw.folder, 1).scans] == ["scan_04"]
        trainer.ask()
        assert existing_rounds(raw.folder) == [0, 1]
    assert "nobody is asked: 4 scans wait for an answer already" in one.log()


def test_a_question_that_cannot_be_written_does_not_end_the_training(project, tmp_path):
    one = training(project.copy(tmp_path / "data"), tmp_path, active={"expert": "person"}, num_epochs=2)
    with mock.patch.object(Folder, "ask", side_effect=InputError("somebody else is changing it")):
        one.here()
    assert one.final.is_file() and "WARNING: nobody was asked" in one.log()


def test_the_scans_of_a_round_are_drawn_once_for_a_training(oracle, tmp_path):
    trainer = training(oracle, tmp_path, relabel={"max_unlabelled": 2}).build()
    before = relabelling.training_scans(trainer).unlabelled
    others = [i for i in trainer.scans.unlabelled if i not in before]
    assert len(before) == 2 and len(others) == 2
    for name in (others[0], before[0]):
        trainer.answered = [name]
        after = relabelling.training_scans(trainer)
        assert after.unlabelled == [i for i in before if i != name] and name in after.labelled


@pytest.mark.parametrize(("strategy", "anywhere"), [("random", True), ("cold-start", False)])
def test_only_the_plain_control_draws_planes_anywhere(strategy, anywhere, oracle, tmp_path):
    trainer = training(oracle, tmp_path, active={"strategy": strategy}).build()
    with mock.patch.object(asking, "choose_planes", return_value=[]) as choose:
        trainer.planes_of(ChosenScan("scan_04", None, ""), np.zeros((1, 1, 1), int), np.random.default_rng(0))
    assert (choose.call_args.kwargs["body"] is None) == anywhere


def test_dense_labels_are_known_to_the_log_of_a_round_and_to_nothing_else(oracle, project, tmp_path):
    trainer = training(oracle, tmp_path, relabel={"truth": "logged"}).build()
    raw = RawFolder(oracle.raw)
    dense, _ = raw.read_labels(raw.label_path("scan_04", "labelsTr_dense"))
    labels = trainer.relabeller.truth("scan_04")
    assert trainer.on_own_grid("scan_04", labels).shape == dense.shape
    assert np.mean(trainer.on_own_grid("scan_04", labels) == dense) > 0.9  # small structures meet a coarser grid
    with pytest.raises(InputError, match="relabel.truth is set, but there is no labelsTr_dense"):
        training(project, tmp_path / "without", relabel={"truth": "logged"}, active={"expert": "person"}).build()
