"""Files that other processes may be reading: replaced atomically, never half written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nnunet_gmabs.errors import InputError

NOT_SUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def replace_atomically(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Replace a file by what write makes: readers see the old or the new content, never a mixture.

    The new content is written beside its target under a temporary name with the same ending,
    flushed to disk, and then moved over the target. If write raises, the target is untouched and
    the temporary file is removed.

    Args:
        path: the file to make or replace. Its folder must exist.
        write: gets the temporary path and writes the whole content there.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_unfinished(path: Path) -> bool:
    """Whether a file has the name under which replace_atomically writes: one that stays is of a killed process."""
    return re.fullmatch(r"\.[0-9a-f]{8}\..+", path.name) is not None


def remove_unfinished(folder: Path, pattern: str = "*") -> None:
    """Remove what killed processes have left of files that they were replacing.

    Args:
        folder: may be missing; nobody else may be writing there.
        pattern: of the files' names.
    """
    for path in folder.glob(f".*.{pattern}"):
        if is_unfinished(path):
            path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name that nothing has yet: a hard link, or a copy where the disk has none or is another.

    Args:
        source: the file; of a symbolic link, the file that it leads to.
        target: its new name.

    Returns:
        True for a link, False for a copy.

    Raises:
        FileExistsError: if the name is taken, even by a link that leads nowhere; nothing is changed then.
    """
    try:
        os.link(source.resolve(), target)
        return True
    except FileExistsError:
        raise
    except OSError:
        with open(target, "xb") as new:
            try:
                with open(source, "rb") as old:
                    shutil.copyfileobj(old, new)
            except BaseException:
                target.unlink()
                raise
        return False


def move_to_new(source: Path, target: Path) -> None:
    """Move a finished file to a name that nothing has yet: in one step, or where the disk has no hard links by copying.

    Args:
        source: the file; on the same disk.
        target: its new name.

    Raises:
        FileExistsError: if the name is taken, even by a link that leads nowhere; nothing is changed then.
    """
    link_or_copy(source, target)
    source.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut, where system and disk can (POSIX; not all network disks)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NOT_SUPPORTED):  # how a disk says that it does not do this to folders
            raise
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON, replacing the file atomically."""
    text = json.dumps(value, indent=4) + "\n"
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Rollback:
    """Small files as they were before a change, and the way back to them.

    rollback = Rollback()
    try:
        rollback.remember(path)   # before every change
        ...
    except BaseException:
        rollback.restore()
        raise
    """

    def __init__(self) -> None:
        self._before: dict[Path, bytes | None] = {}
        self._ours: dict[Path, str] = {}
        self._made_folders: list[Path] = []

    def remember(self, path: Path, ours: str | None = None) -> None:
        """Keep the content of a file that is about to be changed, made or removed.

        Args:
            path: the file.
            ours: hash of what is going to be written. A file that holds anything else when restore() comes was saved
                by somebody else meanwhile, and is left alone.
        """
        if path not in self._before:
            self._before[path] = path.read_bytes() if path.exists() else None
        if ours is not None:
            self._ours[path] = ours

    def make_folder(self, folder: Path) -> None:
        """Make a folder (and its parents) that goes away again if it is left empty by restore()."""
        if not folder.is_dir():
            self.make_folder(folder.parent)
            folder.mkdir()
            self._made_folders.append(folder)

    def forget(self) -> None:
        """Keep the changes made so far, whatever happens later."""
        self._before.clear()
        self._ours.clear()
        self._made_folders.clear()

    def restore(self) -> None:
        """Bring every remembered file back; as far as the disk allows, one failure does not stop the others."""
        before = {path: content for path, content in self._before.items() if not self._is_theirs(path)}
        for path, content in before.items():
            if content is None:  # these first: what they held is room for the others, should the disk be full
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        for path, content in before.items():
            if content is not None:
                with contextlib.suppress(OSError):
                    _restore(path, content)
        for folder in reversed(self._made_folders):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _is_theirs(self, path: Path) -> bool:
        try:
            return path in self._ours and sha256(path) != self._ours[path]
        except OSError:  # it is gone, or cannot be read
            return False


def _restore(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        replace_atomically(path, lambda temporary: temporary.write_bytes(content))


@contextlib.contextmanager
def only_one(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file, so that two processes do not do the same thing to the same folder.

    The system lets go of the lock when the process ends, however it ends; the file is removed afterwards.

    Args:
        path: the lock file; its folder must exist.
        doing: what is locked, for the message.

    Raises:
        InputError: if another process holds it, or the disk has no locks.
    """
    with open(path, "a+b") as handle:
        try:
            locked = _try_to_lock(handle)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, *NOT_SUPPORTED):
                raise
            raise InputError(
                f"{path}: this disk has no file locks ({error.strerror}), which keep two commands from changing the "
                "same files; have it mounted with them (Lustre: the option flock), or put the data on another disk"
            ) from error
        if not locked or not _is_same_file(handle, path):
            raise InputError(f"{doing} is running already ({path} is locked); wait until it has ended")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file; the next owner will reuse it
                path.unlink(missing_ok=True)


def _is_same_file(handle: BinaryIO, path: Path) -> bool:
    """False when the file was removed by its last owner between our opening and our locking it."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _try_to_lock(handle: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True
