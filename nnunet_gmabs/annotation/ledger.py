"""gmabs/rounds.jsonl: what was asked, answered, merged and taken back, one JSON object a line, only ever appended to.

    {"event": "asked", "time": ..., "who": ..., "round": 0, "strategy": ..., "scans": 4, "planes": 12, "hash": ...}
    {"event": "answered", ..., "scan": ..., "planes_done": [[0, 12], ...], "seconds": 240, "tool": ..., "hash": ...}
    {"event": "merged", ..., "scan": ..., "transaction": ..., "before_sha256": ..., "after_sha256": ...}
    {"event": "unmerged", ..., "scan": ..., "transactions": [...]}

hash is the SHA-256 of request.json, or of the answer's label file.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.errors import InputError

Event = dict[str, Any]


def ledger_file(data_set: Path) -> Path:
    """Where the ledger of a raw data set is."""
    return Path(data_set) / "gmabs" / "rounds.jsonl"


def new_event(event: str, round_number: int, who: str | None = None, **more: Any) -> Event:
    """An event that happens now.

    Args:
        event: asked, answered, merged or unmerged.
        round_number: its round.
        who: None means the user who runs this program.
        more: further fields, which JSON must be able to hold.
    """
    return {"event": event, "time": now(), "who": who or user_name(), "round": round_number, **more}


def read_events(data_set: Path) -> list[Event]:
    """All events, oldest first; a last line that was never finished does not count.

    Raises:
        InputError: if another line is damaged.
    """
    try:
        lines = ledger_file(data_set).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        raise InputError(f"{ledger_file(data_set)}: a line is damaged ({error}); restore it from a backup") from error


def append_events(data_set: Path, events: Iterable[Event]) -> None:
    """Append events in one write that is on disk when this returns; a torn last line before them is cut off."""
    text = "".join(json.dumps(event) + "\n" for event in events).encode()
    path = ledger_file(data_set)
    path.parent.mkdir(exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(handle, whole)
        os.lseek(handle, whole, os.SEEK_SET)
        if os.write(handle, text) < len(text):
            raise OSError(errno.ENOSPC, "no room for a line", str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def merged_now(events: Iterable[Event], scan: str) -> list[Event]:
    """Merges into one scan that were not taken back, oldest first."""
    events = list(events)
    undone = {t for e in events if e["event"] == "unmerged" and e["scan"] == scan for t in e["transactions"]}
    mine = [e for e in events if e["event"] == "merged" and e["scan"] == scan]
    return [e for e in mine if e["transaction"] not in undone]


def planes_of(event: Event) -> set[Plane]:
    """The planes that an answered or merged event calls done."""
    return {(int(axis), int(index)) for axis, index in event["planes_done"]}


def measured_minutes_per_plane(events: Iterable[Event]) -> float | None:
    """Mean time that experts took for a plane, over answers whose time was measured; None without one."""
    timed = [e for e in events if e["event"] == "answered" and e.get("seconds") and e["planes_done"]]
    planes = sum(len(e["planes_done"]) for e in timed)
    return sum(e["seconds"] for e in timed) / 60 / planes if planes else None


def now() -> str:
    """The time in ISO format, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def user_name() -> str:
    """Who runs this program; "unknown" where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no entry for this user, as in some containers
        return "unknown"
