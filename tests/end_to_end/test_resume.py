"""Interrupted and continued equals uninterrupted, whenever the kill comes."""

import os
import random
import shutil
import signal
import time

import pytest
import tiny
from tiny import Training

pytestmark = pytest.mark.slow
# 2 * 0.8 samples of a batch are labelled: how many of this one, depends on its place in the training
SETTINGS = {"streams": {"labelled_share": 0.8}, "consistency": {"mix_side": 0.6}}


@pytest.fixture(scope="module")
def uninterrupted(project, tmp_path_factory):
    """A training in this process that ran through."""
    training = Training(project, tmp_path_factory.mktemp("uninterrupted"), settings=SETTINGS)
    training.here()  # imports what the next one need not import
    shutil.rmtree(training.output)
    start = time.perf_counter()
    training.here()
    training.seconds = time.perf_counter() - start
    return training


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def patch(owner, name, moment):
    """Replace owner.name by moment(original)."""
    setattr(owner, name, moment(getattr(owner, name)))


def before_the_first_checkpoint():
    patch(_trainer(), "on_train_epoch_end", lambda original: lambda self, outputs: die())


def in_the_middle_of_an_epoch():
    def moment(original):
        return lambda self, batch: die() if self.iteration == 7 else original(self, batch)

    patch(_trainer(), "train_step", moment)


def after_an_epoch_before_its_checkpoint():
    def moment(original):
        return lambda self: die() if self.current_epoch == 2 else original(self)

    patch(_trainer(), "on_epoch_end", moment)


def while_a_checkpoint_is_half_written():
    import torch

    def moment(original):
        def save(checkpoint, path):
            original(checkpoint, path)
            if checkpoint["current_epoch"] == 3 and "latest" in str(path):
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        return save

    patch(torch, "save", moment)


def before_a_checkpoint_is_swapped_in():
    patch(os, "replace", _die_at("checkpoint_latest.pth", 3))


def before_the_previous_checkpoint_is_kept():
    patch(os, "replace", _die_at("checkpoint_previous.pth", 2))


def after_a_checkpoint_before_the_log():
    patch(os, "replace", _die_at("gmabs_log.csv", 3))


def before_the_final_checkpoint():
    patch(_trainer(), "on_train_end", lambda original: lambda self: die())


def with_final_and_latest_checkpoint_there():
    patch(os, "remove", lambda original: lambda path: die())


def in_the_final_validation():
    patch(_trainer(), "perform_actual_validation", lambda original: lambda self, probabilities: die())


MOMENTS = [
    before_the_first_checkpoint,
    in_the_middle_of_an_epoch,
    after_an_epoch_before_its_checkpoint,
    while_a_checkpoint_is_half_written,
    before_a_checkpoint_is_swapped_in,
    before_the_previous_checkpoint_is_kept,
    after_a_checkpoint_before_the_log,
    before_the_final_checkpoint,
    with_final_and_latest_checkpoint_there,
    in_the_final_validation,
]


def _trainer():
    from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher

    return nnUNetTrainerMeanTeacher


def _die_at(name, nth):
    """Dies instead of the nth replacement of a file."""
    seen = []

    def moment(original):
        def replace(source, target):
            seen.append(name) if os.path.basename(target) == name else None
            die() if len(seen) == nth else original(source, target)

        return replace

    return moment


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_killed_and_continued_equals_uninterrupted_bit_for_bit(moment, uninterrupted, project, tmp_path):
    training = Training(project, tmp_path, settings=SETTINGS)
    assert training.in_child(before=moment) == -signal.SIGKILL
    check_continued(training, uninterrupted)


@pytest.mark.parametrize("draw", range(3))
def test_killed_at_a_random_moment_and_continued_equals_uninterrupted(draw, uninterrupted, project, tmp_path):
    training = Training(project, tmp_path, settings=SETTINGS)
    share = random.Random(draw).uniform(0.1, 1)
    assert training.in_child(seconds=share * uninterrupted.seconds) in (-signal.SIGKILL, 0)
    check_continued(training, uninterrupted)


def check_continued(training, uninterrupted):
    """Continue the training; all that it leaves is what the uninterrupted one has left."""
    training.here(continue_training=True)
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        assert tiny.differences(tiny.load(training.output / name), tiny.load(uninterrupted.output / name)) == []
    for name in ("gmabs_log.csv", "gmabs.json", "validation/scan_00.nii.gz"):
        assert (training.output / name).read_bytes() == (uninterrupted.output / name).read_bytes()
    assert sorted(path.name for path in training.output.glob("checkpoint*")) == sorted(
        ["checkpoint_best.pth", "checkpoint_final.pth"]
    )
