"""Several files changed together: after a kill at any moment all are old or, once recover() has run, all are new.

Everything is first written into a folder of its own. Renaming that folder to gmabs/journal is the moment at which the
change counts; only then files are replaced, one by one, and the ledger is told last. Whoever finds a journal does that
again from its beginning: every step may be done twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from nnunet_gmabs.annotation.ledger import Event, append_events, new_event, read_events
from nnunet_gmabs.annotation.requests import existing_rounds, read_request, round_folder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import only_one, remove_unfinished, replace_atomically, sha256, sync_folder, write_json

PLAN = "plan.json"


@contextlib.contextmanager
def changing(data_set: Path) -> Iterator[None]:
    """Alone in changing the labels and rounds of a data set, after finishing what a killed process began.

    Raises:
        InputError: if another process is changing them.
    """
    folder = Path(data_set) / "gmabs"
    folder.mkdir(exist_ok=True)
    with only_one(folder / ".changing.lock", f"another gmabs command that changes {Path(data_set).name}"):
        recover(data_set)
        yield


def require_writable(data_set: Path) -> None:
    """Raise InputError where changing() would not be allowed to write; for what comes long before it."""
    folder = Path(data_set) / "gmabs"
    folder = folder if folder.is_dir() else folder.parent
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: may not be written to; allow it, or copy the data set to where you may write")


def recover(data_set: Path) -> bool:
    """Finish a change that counted already, forget one that did not; True when something was finished.

    To be called under the lock of changing().
    """
    folder = Path(data_set) / "gmabs"
    committed = folder / "journal"
    found = committed.is_dir()
    if found:
        _apply(Path(data_set), committed)
    for left_over in (*folder.glob(".journal.*"), *folder.glob("requests/.round_*")):
        shutil.rmtree(left_over, ignore_errors=True)
    remove_unfinished(Path(data_set) / "labelsTr")
    tell_of_rounds(data_set)
    return found


class Transaction:
    """Changes that are made together, or not at all.

    transaction = Transaction(data_set)
    transaction.write(path, lambda temporary: temporary.write_bytes(content))
    transaction.note(event)
    transaction.commit()

    Args:
        data_set: the raw data set; all files lie in it. Must be used inside changing().
    """

    def __init__(self, data_set: Path) -> None:
        self.data_set = Path(data_set)
        self.id = secrets.token_hex(8)
        self._staging = self.data_set / "gmabs" / f".journal.{self.id}"
        self._staging.mkdir(parents=True)
        self._writes: list[tuple[str, str]] = []
        self._removes: list[str] = []
        self._events: list[Event] = []

    def write(self, target: Path, make: Callable[[Path], object]) -> Path:
        """Stage the new content of a file, which make writes to the path that it is given; returns that path.

        What make writes beside it under the same name with another ending comes along, and is changed first.
        """
        number = f"{len(self._writes):04d}_"
        staged = self._staging / f"{number}{target.name}"  # readers and writers look at the ending
        make(staged)
        beside = sorted(path for path in self._staging.glob(f"{number}*") if path != staged)
        for path in (*beside, staged):
            _sync(path)
            place = target.with_name(path.name.removeprefix(number))
            self._writes.append((str(place.relative_to(self.data_set)), path.name))
        return staged

    def remove(self, target: Path) -> None:
        """Have a file removed, if it is there."""
        self._removes.append(str(target.relative_to(self.data_set)))

    def note(self, event: Event) -> None:
        """Have the ledger told, when everything else is done."""
        self._events.append({**event, "journal": self.id})

    def commit(self) -> None:
        """Make the changes."""
        plan = {"id": self.id, "writes": self._writes, "removes": self._removes, "events": self._events}
        write_json(self._staging / PLAN, plan)
        committed = self.data_set / "gmabs" / "journal"
        os.replace(self._staging, committed)
        sync_folder(committed.parent)
        _apply(self.data_set, committed)

    def abandon(self) -> None:
        """Forget everything; for a transaction that is not committed."""
        shutil.rmtree(self._staging, ignore_errors=True)


def _apply(data_set: Path, committed: Path) -> None:
    plan = json.loads((committed / PLAN).read_text(encoding="utf-8"))
    for target, staged in plan["writes"]:
        path = data_set / target
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, partial(shutil.copyfile, committed / staged))
    for target in plan["removes"]:
        (data_set / target).unlink(missing_ok=True)
    if not any(event.get("journal") == plan["id"] for event in read_events(data_set)):
        append_events(data_set, plan["events"])
    done = committed.with_name(f".journal.{plan['id']}")
    os.replace(committed, done)  # removing it file by file could leave half a journal behind
    shutil.rmtree(done, ignore_errors=True)


def tell_of_rounds(data_set: Path) -> None:
    """A round's folder appears at once, the ledger follows: after a kill between the two, here."""
    told = {event["round"] for event in read_events(data_set) if event["event"] == "asked"}
    missing = [number for number in existing_rounds(data_set) if number not in told]
    if missing:
        append_events(data_set, [asked_event(data_set, number) for number in missing])


def asked_event(data_set: Path, number: int) -> Event:
    """What the ledger says about a round that was asked."""
    request = read_request(data_set, number)
    return new_event(
        "asked",
        number,
        strategy=request.strategy,
        seed=request.seed,
        scans=len(request.scans),
        planes=request.number_of_planes,
        hash=sha256(round_folder(data_set, number) / "request.json"),
    )


def _sync(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())
