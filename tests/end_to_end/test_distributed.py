"""Trainings in two processes do what one process does with the same batches, and share out rounds and questions."""

import errno
import json
import math
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
from processes import in_processes
from shared_training import BOTH, CMEMS, GMABS, ROUNDS, SURE, trained
from test_asking_trainer import ACTIVE, with_dense_labels
from test_asking_trainer import SETTINGS as ASKING
from tiny import MEAN_TEACHER, SPARSE, Training

from nnunet_gmabs.data import pseudo_labels

pytestmark = pytest.mark.slow
# Two processes sum in another order than one, and steps let such differences grow: after twelve 1e-7 to 5e-6 of a value
TOLERANCE = 1e-4
# each process draws for its samples, or doubts them, on its own; without that the batch decides
NOTHING_DRAWN = {
    MEAN_TEACHER: {"consistency": {"noise_sd": 0.0, "log_gamma_limit": 0.0}},
    GMABS: {"noise_tolerant": {"doubtful_as": "pseudo"}, **ROUNDS},
    CMEMS: tiny.merge(
        SURE,
        {"mutual": {"image": {"strength": 0.0, "cutmix": 0.0}, "feature": {"kinds": "dropout", "dropout": 0.0}}},
    ),
}
NOTHING_DRAWN[GMABS] = tiny.merge(tiny.MEAN_TEACHER_SETTINGS, NOTHING_DRAWN[MEAN_TEACHER]) | NOTHING_DRAWN[GMABS]
NOTHING_DRAWN[BOTH] = tiny.merge(NOTHING_DRAWN[GMABS], NOTHING_DRAWN[CMEMS])
NOTHING_DRAWN[SPARSE] = {}


def draw_batches(training, file):
    """Whole batches of a training, for training and validation, in a file."""
    trainer = training.build()
    with mock.patch.dict("os.environ", training.environment()):
        augmenters = trainer.get_dataloaders()
    numbers = trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    pairs = zip(augmenters, numbers, strict=True)
    torch.save([[next(augmenter) for _ in range(trainer.num_epochs * number)] for augmenter, number in pairs], file)
    return file


# ---- the same training


# with batches of 2 one process has the labelled sample, and the other one the unlabelled one
@pytest.mark.parametrize(
    ("trainer", "batch_size"), [(SPARSE, 4), (MEAN_TEACHER, 2), (GMABS, 3), (CMEMS, 2), (CMEMS, 5), (BOTH, 4)]
)
def test_two_processes_learn_from_the_same_batches_what_one_does(trainer, batch_size, of_size, tmp_path):
    settings = NOTHING_DRAWN[trainer]
    one, two = (Training(of_size(batch_size), tmp_path / n, trainer, settings=settings) for n in ("one", "two"))
    batches = draw_batches(one, tmp_path / "batches.pt")
    alone, of_ranks = trained(one, batches), in_processes(2, tmp_path, trained, two, batches)
    assert [rank["samples"] for rank in of_ranks] == [(batch_size + 1) // 2, batch_size // 2]
    difference = largest_difference(of_ranks[0]["history"], alone["history"])
    print(f"{trainer}, batch of {batch_size}: {difference:.1e}")
    assert difference < TOLERANCE
    assert of_ranks[0]["train_losses"] == pytest.approx(alone["train_losses"], rel=TOLERANCE)
    assert tiny.differences(of_ranks[0]["history"], of_ranks[1]["history"]) == []
    weights, *others = (tensors(result["weights"]) for result in (*of_ranks, alone))
    assert tiny.differences(weights, others[0]) == []
    torch.testing.assert_close(weights, others[1], rtol=TOLERANCE, atol=1e-5)


def largest_difference(rows, wanted):
    """Of what the log says of losses, weights, gradients and pseudo Dice, as a share of the value."""
    names = ("loss/", "weight/", "gradient_ratio/", "pseudo_dice/")
    differences = []
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        for name in (n for n in row if n.startswith(names)):
            assert math.isnan(row[name]) == math.isnan(other[name]), name
            if not math.isnan(row[name]):
                differences.append(abs(row[name] - other[name]) / max(abs(other[name]), 1e-3))
    return max(differences)


def tensors(weights):
    return {name: [torch.from_numpy(value) for value in values] for name, values in weights.items()}


# ---- rounds


def a_round(training):
    """Round 1 of relabelling by a teacher that has learned nothing; which scans this process has labelled."""
    labelled, write = [], pseudo_labels.write_pseudo_labels

    def watched(folder, number, identifier, *more):
        labelled.append(identifier)
        write(folder, number, identifier, *more)

    trainer = training.build()
    trainer.round = 1
    with mock.patch.object(pseudo_labels, "write_pseudo_labels", watched):
        trainer.run_round()
    return labelled, trainer.round_finished


@pytest.mark.parametrize("more", [{}, {"relabel": {"min_expert_agreement": 0.01, "prototypes": "labelled"}}])
def test_a_round_is_shared_out_and_has_the_labels_of_one_process(more, of_size, tmp_path):
    one, two = (Training(of_size(4), tmp_path / n, GMABS, settings=more) for n in ("one", "two"))
    (first, finished), (second, _) = in_processes(2, tmp_path, a_round, two)
    assert finished and len(first) == 4 and len(second) == 3 and not {*first} & {*second}
    alone, _ = a_round(one)
    assert sorted(alone) == sorted(first + second)
    for identifier in alone:
        name = f"pseudo_labels/round_001/{identifier}.b2nd"
        of_one, of_two = (pseudo_labels.read_pseudo_labels(t.output / name)[:] for t in (one, two))
        assert (of_one == of_two).all()
    assert pseudo_labels.is_complete(two.output / "pseudo_labels", 1)


def a_round_on_a_disk_that_is_full_for_rank_1(training):
    from torch import distributed

    write = pseudo_labels.write_pseudo_labels

    def full(*arguments):
        if distributed.get_rank() == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    trainer = training.build()
    trainer.round, trainer.round_finished = 1, False
    with mock.patch.object(pseudo_labels, "write_pseudo_labels", full):
        trainer.run_round()
    return trainer.round_finished


def test_a_full_disk_of_one_process_ends_the_round_of_both(of_size, tmp_path):
    one = Training(of_size(4), tmp_path, GMABS)
    assert in_processes(2, tmp_path, a_round_on_a_disk_that_is_full_for_rank_1, one) == [False, False]
    assert "WARNING: round 1 of relabelling failed ([Errno 28] No space left on device)" in one.log()
    assert not pseudo_labels.finished(one.output / "pseudo_labels", 1)


# ---- questions


@pytest.fixture(scope="module")
def oracle(of_size, tmp_path_factory):
    return with_dense_labels(of_size(4), tmp_path_factory.mktemp("oracle"))


def a_question(training):
    """One round of questions by networks that have learned nothing; which scans this process has looked at."""
    trainer = training.build()
    looked, look = [], trainer.look
    with mock.patch.object(trainer, "look", lambda name: (looked.append(name), look(name))[1]):
        trainer.ask()
    trainer.take_answers()
    asked = [[scan | {"reason": ""} for scan in request["scans"]] for request in trainer.asked]
    return looked, asked, trainer.answered, trainer.scans


@pytest.mark.parametrize("strategy", ["uncertainty-diverse", "cold-start"])
def test_scans_to_ask_for_are_looked_at_by_both_and_the_question_is_that_of_one_process(strategy, oracle, tmp_path):
    settings = tiny.merge(ASKING, {"active": {"strategy": strategy, "scans_per_round": 2}})
    one, two = (Training(oracle, tmp_path / n, ACTIVE, settings=settings) for n in ("one", "two"))
    (first, *of_first), (second, *of_second) = in_processes(2, tmp_path, a_question, two)
    assert len(first) == 2 and len(second) == 2
    alone, *wanted = a_question(one)
    assert sorted(first + second) == sorted(alone)
    assert of_first == of_second == wanted and len(wanted[1]) == 2
    assert len(json.loads((two.output / "asked.json").read_text())) == 1


def watched_training(training):
    """trained(), and the names of files below its folder that this process has opened for writing, moved or removed."""
    touched = set()

    def watch(event, arguments):
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"):
            paths = [Path(os.fsdecode(a)) for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
            touched.update(str(p.relative_to(training.output)) for p in paths if training.output in p.parents)

    sys.addaudithook(watch)
    return trained(training), touched


def test_answers_reach_both_processes_of_a_training_and_one_writes(oracle, tmp_path):
    one = Training(oracle, tmp_path, ACTIVE, settings=ASKING)
    (first, by_first), (second, by_second) = in_processes(2, tmp_path, watched_training, one)
    assert {"checkpoint_latest.pth", "gmabs_log.csv", "asked.json", "gmabs.json"} <= by_first
    assert any(name.startswith("expert/") for name in by_first)
    shared_out = re.compile(r"validation(/.*)?|pseudo_labels/round_001/(\.\w+\.)?scan_\d+\.b2nd")
    assert by_second and [name for name in by_second if not shared_out.fullmatch(name)] == []
    assert tiny.differences(first["history"], second["history"]) == []
    asking = tiny.load(one.final)["gmabs"]["asking"]
    assert len(asking["asked"]) == len(asking["answered"]) == 2
    assert [one.log().count(f"{n} labelled scans, {7 - n} unlabelled ones") for n in (3, 4, 5)] == [1, 1, 1]
