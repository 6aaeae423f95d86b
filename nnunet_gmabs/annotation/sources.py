"""Which files are going to be merged: answers that lie in their rounds, and files that were edited elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_gmabs.annotation.foreign import READABLE
from nnunet_gmabs.annotation.ledger import Event, merged_now, planes_of, read_events, user_name
from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import (
    Answer,
    answer_paths,
    arrived_answers,
    existing_rounds,
    is_answer,
    read_answer,
    read_request,
    round_folder,
)
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256

ALL_DONE = "all"


@dataclass(frozen=True)
class Source:
    """One file with labels that an expert has drawn.

    Attributes:
        round: the round that asked.
        path: the label file.
        answer: what is said about it.
        asked: the planes that the round asks for in this scan.
        hash: SHA-256 of the label file.
    """

    round: int
    path: Path
    answer: Answer
    asked: tuple[Plane, ...]
    hash: str

    @property
    def identifier(self) -> str:
        """The scan."""
        return self.answer.identifier

    def is_merged(self, events: Iterable[Event]) -> bool:
        """Whether exactly this is in the labels already, as far as the ledger knows."""
        merged = [e for e in merged_now(events, self.identifier) if e["round"] == self.round]
        done = set(self.answer.planes_done)
        return bool(merged) and merged[-1]["hash"] == self.hash and planes_of(merged[-1]) == done


def waiting_sources(raw: RawFolder, rounds: Sequence[int] | None = None) -> list[Source]:
    """All answers that have arrived and are not merged as they are now, sorted by round and scan.

    Args:
        raw: the data set.
        rounds: look at these only.

    Raises:
        InputError: if an answer cannot be understood, or belongs to no request.
    """
    events = read_events(raw.folder)
    found = []
    for number in existing_rounds(raw.folder) if rounds is None else rounds:
        read_request(raw.folder, number)  # says which rounds there are
        folder = round_folder(raw.folder, number)
        found += [_of_answer(raw, number, answer) for answer in arrived_answers(folder)]
    return [source for source in found if not source.is_merged(events)]


def source_of(
    raw: RawFolder, path: Path, done: Sequence[Plane] | str | None = None, number: int | None = None
) -> Source:
    """What is known about a label file that the user names.

    Which scan it belongs to is told by its name, which begins with the scan's, or by its folder's. Which planes are
    done is told by an answer's .json beside it, or by the user: files of editors cannot tell.

    Args:
        raw: the data set.
        path: the file.
        done: planes drawn completely, or "all" for those asked for; None where a .json says it.
        number: the round; None means the latest that asks for this scan.

    Raises:
        InputError: if the file, its scan, its round or what is done cannot be told.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    ending = next((e for e in (raw.file_ending, *READABLE) if path.name.endswith(e)), None)
    if ending is None:
        raise InputError(f"{path}: ends with none of {', '.join(READABLE)}; export it in such a format")
    identifier = _scan_of(raw, path, path.name[: -len(ending)])
    asking = [n for n in existing_rounds(raw.folder) if read_request(raw.folder, n).planes_of(identifier)]
    beside = path.with_name(f"{path.name[: -len(ending)]}.json")
    if number is None:
        number = _round_of(raw, path)
    if number is None:
        number = asking[-1] if asking else None
    if number is None or number not in asking:
        raise InputError(
            f"{path}: {'no round' if number is None else f'round {number}'} asks for {identifier}; rounds that do: "
            f"{', '.join(map(str, asking)) or 'none'}. To add other planes, ask for them first, or edit labelsTr"
        )
    asked = tuple(read_request(raw.folder, number).planes_of(identifier))
    if done is None and is_answer(beside):
        answer = replace(read_answer(beside), identifier=identifier)
    elif done is None:
        named = " ".join(f"{axis}:{index}" for axis, index in asked)
        raise InputError(
            f"{path}: which planes of {identifier} are drawn completely? Say --done all for {named}, or name some of "
            "them; what is not said to be done is not taken, since 0 also means not drawn"
        )
    else:
        planes = asked if isinstance(done, str) else tuple(sorted(set(done)))
        answer = Answer(identifier, planes, user_name(), tool=ending.lstrip("."))
    return Source(number, path, answer, asked, sha256(path))


def parse_done(words: Sequence[str] | None) -> list[Plane] | str | None:
    """What the user says is done: ["all"], or planes as axis:index.

    Raises:
        InputError: if it is neither.
    """
    if words is None:
        return None
    if list(words) == [ALL_DONE]:
        return ALL_DONE
    matches = [re.fullmatch(r"([012]):(\d+)", word) for word in words]
    if not words or not all(matches):
        raise InputError(f"--done {' '.join(words)}: must be  all , or planes such as  0:12 1:30  (axis:index)")
    return [(int(m[1]), int(m[2])) for m in matches if m]


def _of_answer(raw: RawFolder, number: int, answer: Answer) -> Source:
    folder = round_folder(raw.folder, number)
    path, description = answer_paths(folder, answer.identifier, raw.file_ending)
    asked = tuple(read_request(raw.folder, number).planes_of(answer.identifier))
    if not asked:
        raise InputError(f"{description}: round {number} does not ask for {answer.identifier}; move it away")
    if not path.is_file():
        raise InputError(f"{path} is missing, but {description.name} is there; save the answer again, or remove that")
    return Source(number, path, answer, asked, sha256(path))


def _scan_of(raw: RawFolder, path: Path, stem: str) -> str:
    """The scan whose name the file's begins with (the longest one), else the one that the folder is called."""
    scans = raw.scans()
    fitting = [name for name in scans if re.match(re.escape(name) + r"(?![0-9A-Za-z])", stem)]
    fitting += [name for name in scans if not fitting and path.parent.name == name]
    if not fitting:
        raise InputError(f"{path}: the name begins with that of no scan in imagesTr; call it <scan>_labels")
    return max(fitting, key=len)


def _round_of(raw: RawFolder, path: Path) -> int | None:
    """The round in whose folder a file lies."""
    folders = {round_folder(raw.folder, n).resolve(): n for n in existing_rounds(raw.folder)}
    return next((folders[parent] for parent in path.resolve().parents if parent in folders), None)
