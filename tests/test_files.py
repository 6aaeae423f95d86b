"""Files that others read: swapped in whole, put back on failure, locked against a second writer."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
from unittest import mock

import pytest

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, link_or_copy, move_to_new, only_one, replace_atomically, sha256, write_json


def fail(path):
    path.write_text("half")
    raise RuntimeError("stop")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        replace_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_open_file_keeps_its_content_while_the_path_gets_the_new_one(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with open(path) as reader:
        write_json(path, {"a": 2})
        assert reader.read() == '{\n    "a": 1\n}\n'
    assert path.read_text() == '{\n    "a": 2\n}\n'


def no_sync(error):
    """fsync as of a disk that refuses it for folders."""
    fsync = os.fsync

    def sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(handle)

    return sync


@pytest.mark.skipif(os.name != "posix", reason="folders are synchronised on POSIX only")
@pytest.mark.parametrize(("error", "harmless"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_disk_that_does_not_synchronise_folders_can_be_written_to(tmp_path, monkeypatch, error, harmless):
    monkeypatch.setattr(os, "fsync", no_sync(error))
    with contextlib.nullcontext() if harmless else pytest.raises(OSError, match=os.strerror(error)):
        write_json(tmp_path / "file.json", 1)
    assert (tmp_path / "file.json").read_text() == "1\n"


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of POSIX")
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_named_with_the_cure(tmp_path, monkeypatch, error):
    monkeypatch.setattr("fcntl.flock", mock.Mock(side_effect=OSError(error, os.strerror(error))))
    with pytest.raises(InputError, match=r"lock: this disk has no file locks .*mounted with them \(Lustre"):
        with only_one(tmp_path / "lock", "work"):
            pass


def test_hash_is_that_of_the_standard(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_rollback_brings_back_changed_removed_and_new_files(tmp_path):
    changed, removed, new, folder = (tmp_path / name for name in ("changed", "removed", "new", "folder"))
    changed.write_text("before")
    removed.write_text("before")
    rollback = Rollback()
    for path in (changed, removed, new):
        rollback.remember(path)
    rollback.make_folder(folder / "inner")
    changed.write_text("after")
    removed.unlink()
    new.write_text("after")
    rollback.restore()
    assert changed.read_text() == "before" and removed.read_text() == "before"
    assert not new.exists() and not folder.exists()


def test_rollback_remembers_the_first_state_and_forgets_when_told(tmp_path):
    path = tmp_path / "file"
    path.write_text("first")
    rollback = Rollback()
    rollback.remember(path)
    path.write_text("second")
    rollback.remember(path)
    path.write_text("third")
    rollback.restore()
    assert path.read_text() == "first"
    path.write_text("fourth")
    rollback.forget()
    rollback.restore()
    assert path.read_text() == "fourth"


def test_rollback_leaves_alone_what_somebody_else_has_written(tmp_path):
    new, changed = tmp_path / "new", tmp_path / "changed"
    changed.write_text("before")
    ours = tmp_path / "ours"
    ours.write_text("ours")
    for by_others, after in ((False, [None, "before"]), (True, ["theirs", "theirs"])):
        rollback = Rollback()
        for path in (new, changed):
            rollback.remember(path, ours=sha256(ours))
            path.write_text("theirs" if by_others else "ours")
        rollback.restore()
        assert [path.read_text() if path.exists() else None for path in (new, changed)] == after


def without_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("link", [os.link, without_links], ids=["with hard links", "without"])
def test_a_file_is_moved_to_a_new_name_only(tmp_path, monkeypatch, link):
    monkeypatch.setattr(os, "link", link)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("ours")
    move_to_new(source, target)
    assert target.read_text() == "ours" and not source.exists()
    source.write_text("second")
    with pytest.raises(FileExistsError):
        move_to_new(source, target)
    assert target.read_text() == "ours"


@pytest.mark.parametrize("link", [os.link, without_links], ids=["with hard links", "without"])
def test_a_second_name_is_a_link_where_the_disk_has_them_and_never_one_that_is_taken(tmp_path, monkeypatch, link):
    monkeypatch.setattr(os, "link", link)
    source, target, by_link = tmp_path / "source", tmp_path / "target", tmp_path / "by_link"
    source.write_text("ours")
    (tmp_path / "symbolic").symlink_to(source)
    for path, new in ((source, target), (tmp_path / "symbolic", by_link)):
        assert link_or_copy(path, new) == new.samefile(source) == (link is not without_links)
        assert new.read_text() == "ours" and not new.is_symlink()
    target.unlink()
    for taken in (lambda: target.write_text("theirs"), lambda: target.symlink_to(tmp_path / "nowhere")):
        taken()
        with pytest.raises(FileExistsError):
            link_or_copy(source, target)
        assert target.is_symlink() or target.read_text() == "theirs"
        target.unlink()


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", without_links)
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "gone", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import sys, time, pathlib\n"
        "from nnunet_gmabs.files import only_one\n"
        "with only_one(pathlib.Path(sys.argv[1]), 'x'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="work is running already"):
            with only_one(path, "work"):
                pass
        process.kill()
    with only_one(path, "work"):  # the dead process's file is still there, its lock is not
        pass
    assert not path.exists()
