"""What ends a command in one line: the disk says no."""

import errno
import os

import pytest
import raw_data
from asked import PLANES, ask, make_raw

from nnunet_gmabs import cli
from nnunet_gmabs.annotation import journal


@pytest.fixture
def raw(nnunet_folders):
    raw = make_raw(nnunet_folders["nnUNet_raw"])
    ask(raw, {"scan_01": PLANES})
    return raw


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "allow reading and writing there"),
        (errno.EROFS, "allow reading and writing there"),
        (errno.ENOSPC, "make room, then run this again"),
    ],
)
def test_a_disk_that_says_no_is_named_with_the_file_and_the_cure(raw, monkeypatch, capsys, number, cure):
    def refuse(*args):
        raise OSError(number, os.strerror(number), str(raw.folder / "gmabs" / ".changing.lock"))

    monkeypatch.setattr(journal, "only_one", refuse)
    assert cli.main(["merge", "-d", "1"]) == 2
    said = capsys.readouterr().err
    assert said == f"gmabs merge: error: {raw.folder}/gmabs/.changing.lock: {os.strerror(number)}; {cure}\n"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "a"), PermissionError(errno.EACCES, "a port")])
def test_other_errors_of_the_system_are_not_hidden(raw, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(journal, "only_one", fail)
    with pytest.raises(type(error)):
        cli.main(["merge", "-d", "1"])


@pytest.mark.parametrize("made", [True, False])
def test_ask_looks_at_no_scan_where_it_may_not_write(raw, nnunet_folders, monkeypatch, capsys, made):
    folder = raw.folder / "gmabs" if made else raw_data.write_raw(
        nnunet_folders["nnUNet_raw"] / "Dataset002_B", 2, (0,), raw_data.SPARSE_LABELS
    )  # fmt: skip
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder))  # as for a user without rights
    before = raw_data.snapshot(folder)
    assert cli.main(["ask", "-d", "1" if made else "2", "--scans", "1"]) == 2
    assert f"gmabs ask: error: {folder}: may not be written to; allow it, or copy the data" in capsys.readouterr().err
    assert raw_data.snapshot(folder) == before
