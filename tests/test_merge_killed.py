"""Killed at any moment, a merge leaves the old or, once the next command has looked, the new state."""

import os
import shutil
import signal

import numpy as np
import pytest
import raw_data
from asked import PLANES, answer, ask, drawn, labels_of, make_raw

from nnunet_gmabs.annotation.journal import Transaction, changing
from nnunet_gmabs.annotation.ledger import append_events, ledger_file, read_events
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.requests import existing_rounds
from nnunet_gmabs.annotation.sources import waiting_sources
from nnunet_gmabs.annotation.unmerge import unmerge
from nnunet_gmabs.data.cases import find_cases
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
HOOKED = [(os, name) for name in ("replace", "fsync", "unlink", "mkdir", "rmdir", "ftruncate", "write")]
HOOKED += [(shutil, "copyfile")]


def in_child(action, before_change):
    """Do it in a child that calls a function before each change of the disk; whether the child was killed."""
    child = os.fork()
    if child == 0:

        def hooked(function):
            def call(*args, **kwargs):
                before_change(function.__name__, args)
                return function(*args, **kwargs)

            return call

        for module, name in HOOKED:
            setattr(module, name, hooked(getattr(module, name)))
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def run_killed(action, moment):
    """Do it in a child that kills itself before its n-th change of the disk; whether it was killed."""
    left = [moment]

    def count(*_):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return in_child(action, count)


def moments(action, folder, more):
    """Moments to kill at: around every step that decides something, and some random ones."""
    trace = folder / "trace.txt"
    append = os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    write = os.write
    in_child(action, lambda name, args: write(append, f"{name} {args[-1]!r}\n".encode(errors="replace")))
    os.close(append)
    lines = trace.read_text().splitlines()
    trace.unlink()
    decide = [n for n, line in enumerate(lines) if line.startswith("write ") or "journal')" in line]
    around = {n + step for n in decide for step in (0, 1, 2, 3)}
    chance = np.random.default_rng(0).choice(len(lines), more, replace=False).tolist()
    return sorted(n for n in {0, len(lines) - 1, *around, *chance} if n < len(lines))


@pytest.fixture
def world(tmp_path):
    """A data set with two answers of which one changes drawn labels, and a way back to it."""
    raw = make_raw(tmp_path)
    ask(raw, {"scan_00": [(0, 4)], "scan_01": PLANES})
    answer(raw, 0, "scan_00", [(0, 4)])
    answer(raw, 0, "scan_01", PLANES)
    kept = tmp_path / "kept"
    shutil.copytree(raw.folder, kept)

    def again():
        shutil.rmtree(raw.folder)
        shutil.copytree(kept, raw.folder)

    return raw, again, kept


def labels_and_merged(folder):
    files = {path.name: path.read_bytes() for path in sorted((folder / "labelsTr").iterdir()) if path.name[0] != "."}
    return files, [(e["event"], e["scan"]) for e in read_events(folder) if "scan" in e]


def check_killed(world, action, count):
    raw, again, _ = world
    old = labels_and_merged(raw.folder)
    points = moments(action, raw.folder.parent, count)
    again()
    action()
    new = labels_and_merged(raw.folder)
    assert old != new
    seen = []
    for moment in points:
        again()
        assert run_killed(action, moment), moment
        for name, content in labels_and_merged(raw.folder)[0].items():
            assert content in (old[0].get(name), new[0].get(name)), "each file is old or new at any moment"
        with changing(raw.folder):
            found = labels_and_merged(raw.folder)
        assert found in (old, new), moment
        seen.append(found == new)
        action()
        assert labels_and_merged(raw.folder) == new, "and the command can simply be run again"
        left_over = [p.name for p in (raw.folder / "gmabs").iterdir() if "journal" in p.name]
        assert left_over == []
    assert seen == sorted(seen) and set(seen) == {False, True}, "first old, from one moment on new"


def test_what_a_kill_has_left_of_a_label_file_is_no_label_file_and_goes(world):
    raw = world[0]
    left = raw.folder / "labelsTr" / ".0123abcd.scan_00.nii.gz"
    own = raw.folder / "labelsTr" / ".scan_00.nii.gz"
    for path in (left, own):
        path.write_bytes(b"half")
    with pytest.raises(InputError, match=r"labelsTr/\.scan_00\.nii\.gz: there is no image"):
        find_cases(raw)
    own.unlink()
    assert len(find_cases(raw)) == 4
    own.write_bytes(b"")
    with changing(raw.folder):
        assert not left.exists() and own.exists()


@pytest.mark.slow
def test_a_killed_merge(world):
    raw = world[0]
    check_killed(world, lambda: merge(raw, lambda: waiting_sources(raw)), 8)
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", PLANES))


@pytest.mark.slow
def test_a_killed_unmerge(world):
    raw, again, kept = world
    merge(raw, lambda: waiting_sources(raw))
    shutil.rmtree(kept)
    shutil.copytree(raw.folder, kept)
    check_killed(world, lambda: unmerge(raw, 0), 5)
    assert not raw.label_path("scan_01").exists()


@pytest.mark.slow
def test_a_killed_question_is_asked_completely_or_not_at_all(world):
    raw, again, _ = world
    before = raw_data.snapshot(raw.folder / "gmabs" / "requests")
    planes = {"scan_02": PLANES, "scan_03": PLANES[:1]}
    points = moments(lambda: ask(raw, planes), raw.folder.parent, 5)
    for moment in points:
        again()
        run_killed(lambda: ask(raw, planes), moment)
        with changing(raw.folder):
            rounds = existing_rounds(raw.folder)
        asked = [e["round"] for e in read_events(raw.folder) if e["event"] == "asked"]
        assert asked == rounds and rounds in ([0], [0, 1])
        after = raw_data.snapshot(raw.folder / "gmabs" / "requests")
        if rounds == [0]:
            assert after == before
        else:
            folder = raw.folder / "gmabs/requests/round_001"
            assert (folder / "for_editors/scan_03/HOW_TO.txt").is_file() and (folder / "answers").is_dir()


def test_a_change_of_more_than_ten_thousand_files_keeps_their_names(tmp_path):
    transaction = Transaction(tmp_path)
    transaction._writes = [("", "")] * 9_999

    def write(path):
        for part in (path, path.with_suffix(".json")):
            part.write_text("a")

    transaction.write(tmp_path / "scan_1.tif", write)
    transaction.write(tmp_path / "scan_2.tif", write)
    assert [target for target, _ in transaction._writes[9_999:]] == [
        "scan_1.json", "scan_1.tif", "scan_2.json", "scan_2.tif"
    ]  # fmt: skip


def test_a_torn_line_of_the_ledger_is_cut_off(tmp_path):
    (tmp_path / "gmabs").mkdir()
    append_events(tmp_path, [{"event": "asked", "round": 0}])
    with open(ledger_file(tmp_path), "ab") as f:
        f.write(b'{"event": "merg')
    assert read_events(tmp_path) == [{"event": "asked", "round": 0}]
    append_events(tmp_path, [{"event": "asked", "round": 1}])
    assert [e["round"] for e in read_events(tmp_path)] == [0, 1]
