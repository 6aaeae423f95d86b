"""A data worker that fails says why, last of all."""

import os
import signal
import time

import pytest

from nnunet_gmabs.data.data_workers import DataWorkers, TellsErrors

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Counting:
    """Batches 0, 1, 2, ...; the one asked for does something else."""

    def __init__(self, number, what):
        self.number, self.what, self.drawn = number, what, -1

    def set_thread_id(self, thread_id):
        self.thread_id = thread_id

    def __next__(self):
        self.drawn += 1
        if self.drawn == self.number and self.thread_id == 1:
            self.what()
        return {"batch": self.drawn}


class Loader(TellsErrors, Counting):
    pass


def fails():
    raise ValueError("scan_07.b2nd: is damaged")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def until_the_end(workers):
    deadline = time.monotonic() + 60
    with pytest.raises(RuntimeError) as caught:
        while time.monotonic() < deadline:
            next(workers)
    return str(caught.value)


def test_batches_come_from_all_workers():
    workers = DataWorkers(Loader(-1, fails), None, 2, 2)
    assert {next(workers)["batch"] for _ in range(50)} >= set(range(10))
    workers._finish()


def test_its_error_is_the_last_line():
    message = until_the_end(DataWorkers(Loader(3, fails), None, 2, 2))
    assert message.strip().splitlines()[-1] == "ValueError: scan_07.b2nd: is damaged"
    assert "in fails" in message


def test_one_that_was_killed_is_named_with_its_signal_and_the_cure():
    message = until_the_end(DataWorkers(Loader(3, dies), None, 2, 2))
    assert "(signal 9)" in message and "nnUNet_n_proc_DA" in message


def test_without_workers_an_error_is_just_raised():
    loader = Loader(0, fails)
    loader.set_thread_id(1)
    with pytest.raises(ValueError, match="damaged"):
        next(loader)
