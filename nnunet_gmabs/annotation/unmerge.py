"""Taking a round back: the label files are again, byte for byte, what they were before it was merged."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nnunet_gmabs.annotation.journal import Transaction, changing
from nnunet_gmabs.annotation.ledger import Event, merged_now, new_event, read_events
from nnunet_gmabs.annotation.merge import before_file
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import read_request
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256


@dataclass(frozen=True)
class TakenBack:
    """What was done to one scan.

    Attributes:
        identifier: the scan.
        removed: whether it had no label file before, and has none again.
        deeper: whether an earlier merge of the same round lies below one of another round, and stays.
    """

    identifier: str
    removed: bool
    deeper: bool


def unmerge(raw: RawFolder, number: int) -> list[TakenBack]:
    """Take back what was merged from one round, in all its scans or in none.

    Merges lie upon each other like sheets of paper: of each scan the topmost are taken off, as far as they belong to
    this round. Answers stay where they are, and can be merged again.

    Returns:
        One entry for each scan; empty when nothing of this round is merged.

    Raises:
        InputError: if there is no such round, a later round lies above it, or a label file was changed since.
    """
    with changing(raw.folder):
        request = read_request(raw.folder, number)
        events = read_events(raw.folder)
        tops = {scan.identifier: _top(raw, events, scan.identifier, number) for scan in request.scans}
        tops = {identifier: top for identifier, top in tops.items() if top}
        if not tops:
            return []
        transaction = Transaction(raw.folder)
        try:
            result = [_stage(raw, transaction, identifier, top, events) for identifier, top in tops.items()]
            transaction.commit()
        finally:
            transaction.abandon()
        _remove_empty_folders(raw.folder / "gmabs" / "rounds")
    return result


def _top(raw: RawFolder, events: list[Event], identifier: str, number: int) -> list[Event]:
    """The topmost merges of a scan that belong to the round, latest first."""
    merged = merged_now(events, identifier)
    if all(event["round"] != number for event in merged):
        return []
    path = raw.label_path(identifier)
    if merged[-1]["round"] != number:
        above = merged[-1]["round"]
        raise InputError(f"round {above} was merged later into {identifier}; take that back first: --round {above}")
    if (sha256(path) if path.is_file() else None) != merged[-1]["after_sha256"]:
        raise InputError(
            f"{path}: was changed since round {number} was merged, so it cannot be taken back exactly; restore it, "
            f"or take the file from gmabs/rounds/round_{number:03d}/before"
        )
    top = []
    for event in reversed(merged):
        if event["round"] != number:
            break
        top.append(event)
    return top


def _stage(
    raw: RawFolder, transaction: Transaction, identifier: str, top: list[Event], events: list[Event]
) -> TakenBack:
    number, lowest = top[0]["round"], top[-1]
    path = raw.label_path(identifier)
    changing_ones = [event for event in top if event["before_sha256"] != event["after_sha256"]]
    removed = bool(changing_ones) and changing_ones[-1]["before_sha256"] is None
    if removed:
        transaction.remove(path)
    elif changing_ones:
        kept = before_file(raw, number, changing_ones[-1]["transaction"], identifier)
        _check_kept(kept, changing_ones[-1]["before_sha256"])
        transaction.write(path, lambda temporary: shutil.copyfile(kept, temporary))
    for event in top:
        transaction.remove(before_file(raw, number, event["transaction"], identifier))
    undone = [event["transaction"] for event in top]
    transaction.note(
        new_event("unmerged", number, scan=identifier, transactions=undone, after_sha256=lowest["before_sha256"])
    )
    deeper = any(e["round"] == number for e in merged_now(events, identifier) if e["transaction"] not in undone)
    return TakenBack(identifier, removed, deeper)


def _check_kept(kept: Path, expected: str) -> None:
    if not kept.is_file() or sha256(kept) != expected:
        raise InputError(f"{kept}: missing or changed, so the round cannot be taken back")


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
