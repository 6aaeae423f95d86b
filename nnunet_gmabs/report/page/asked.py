"""Rounds of asking: what was asked and why, who answered, how long it took, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_gmabs.annotation.ledger import Event, ledger_file, measured_minutes_per_plane, merged_now, planes_of
from nnunet_gmabs.annotation.ledger import read_events as read_ledger
from nnunet_gmabs.annotation.painter.scans import direction_of
from nnunet_gmabs.annotation.painter.views import view_across
from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import (
    Answer,
    Request,
    RequestedPlane,
    RequestedScan,
    answer_paths,
    existing_rounds,
    is_answer,
    read_answer,
    read_request,
    round_folder,
)
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.page.words import STRATEGIES

MERGED, WAITS_FOR_MERGE, TAKEN_BACK, OPEN = (
    "in the labels",
    "drawn, not merged yet",
    "taken back",
    "waits for an expert",
)
SIMULATED, MISSING = "drawn for this training", "answer is missing"
DRAWN = (MERGED, WAITS_FOR_MERGE, SIMULATED)


@dataclass(frozen=True)
class PlaneAsked:
    """One plane of a request: where it is in words, why it was chosen, its score, and what came of it."""

    plane: Plane
    where: str
    reason: str
    score: float | None
    state: str
    proposal_accepted: bool


@dataclass(frozen=True)
class ScanAsked:
    """One scan of a request; minutes is None where nobody measured the time, when "" where the ledger is silent."""

    asked: RequestedScan
    planes: list[PlaneAsked]
    annotator: str = ""
    tool: str = ""
    when: str = ""
    minutes: float | None = None

    @property
    def done(self) -> int:
        """Planes that were drawn, whether merged or not."""
        return sum(plane.state in DRAWN for plane in self.planes)


@dataclass(frozen=True)
class Round:
    """One round of questions with its answers."""

    request: Request
    folder: Path
    who: str
    scans: list[ScanAsked]

    @property
    def why(self) -> str:
        """What the strategy does, in one sentence; "" for one that this program does not know."""
        return STRATEGIES.get(self.request.strategy, "")

    @property
    def created(self) -> str:
        """When it was asked."""
        return readable_time(self.request.created)

    @property
    def states(self) -> dict[str, int]:
        """Planes in each state, in a fixed order, without those that do not occur."""
        counts = Counter(plane.state for scan in self.scans for plane in scan.planes)
        return {state: counts[state] for state in (*DRAWN, TAKEN_BACK, OPEN, MISSING) if counts[state]}

    @property
    def done(self) -> int:
        """Planes drawn."""
        return sum(scan.done for scan in self.scans)

    @property
    def minutes(self) -> float | None:
        """Measured painting time; None where no answer has one."""
        return total_minutes(self.scans)

    @property
    def annotators(self) -> list[str]:
        """Who answered."""
        return sorted({scan.annotator for scan in self.scans if scan.annotator})

    @property
    def scored(self) -> bool:
        """Whether the strategy gave scores to scans."""
        return any(scan.asked.score is not None for scan in self.scans)


@dataclass(frozen=True)
class Asked:
    """All rounds.

    Attributes:
        rounds: in the order in which they were asked.
        minutes_per_plane: measured; None before there was a timed answer.
        guess: minutes for a plane, where nothing is measured.
    """

    rounds: list[Round] = field(default_factory=list)
    minutes_per_plane: float | None = None
    guess: float = 2.0

    @property
    def planes(self) -> int:
        """Planes asked for."""
        return sum(one.request.number_of_planes for one in self.rounds)

    @property
    def done(self) -> int:
        """Planes drawn."""
        return sum(one.done for one in self.rounds)

    @property
    def open(self) -> int:
        """Planes that nobody has drawn; those taken back count."""
        return self.planes - self.done

    @property
    def minutes(self) -> float | None:
        """Measured painting time."""
        return total_minutes([scan for one in self.rounds for scan in one.scans])

    @property
    def minutes_to_come(self) -> float:
        """Estimated painting time of the open planes."""
        return self.open * (self.minutes_per_plane or self.guess)

    @property
    def timed(self) -> tuple[int, int]:
        """Answers whose time was measured, and all answers."""
        answered = [scan for one in self.rounds for scan in one.scans if scan.done]
        return sum(scan.minutes is not None for scan in answered), len(answered)


def read_rounds(raw: RawFolder, damaged: Damaged, guess: float) -> Asked:
    """All rounds of a data set; guess is the time for a plane, in minutes, where nothing is measured."""
    events = damaged.read(ledger_file(raw.folder), _whole_events, raw.folder) or []
    rounds = []
    for number in damaged.read(raw.folder / "gmabs" / "requests", existing_rounds, raw.folder) or []:
        path = round_folder(raw.folder, number)
        request = damaged.read(path / "request.json", read_request, raw.folder, number)
        if request is not None:
            who = next((e["who"] for e in events if e["event"] == "asked" and e["round"] == number), "")
            scans = [_scan(raw, path, number, scan, events, damaged) for scan in request.scans]
            rounds.append(Round(request, path, who, scans))
    return Asked(rounds, _minutes_per_plane(rounds) or measured_minutes_per_plane(events), guess)


def _whole_events(data_set: Path) -> list[Event]:
    """The ledger's events; a line that lacks what its kind needs spoils them all, as they stand on each other."""
    needed = {
        "answered": ("scan", "planes_done"),
        "merged": ("scan", "planes_done", "transaction"),
        "unmerged": ("scan", "transactions"),
    }
    events = read_ledger(data_set)
    for number, event in enumerate(events, 1):
        missing = {"event", "time", "who", "round", *needed.get(str(event.get("event")), ())} - set(event)
        if missing:
            raise InputError(f"{ledger_file(data_set)}: line {number} lacks {', '.join(sorted(missing))}")
    return events


def total_minutes(scans: Sequence[ScanAsked]) -> float | None:
    """Sum of measured times; None where there is none."""
    times = [scan.minutes for scan in scans if scan.minutes is not None]
    return sum(times) if times else None


def readable_time(time: str) -> str:
    """An ISO time for people, or what else was there.

    >>> readable_time("2030-01-02T03:04:05+00:00")
    '2030-01-02 03:04 UTC'
    """
    return f"{time[:10]} {time[11:16]} UTC" if time[10:11] == "T" and time.endswith("+00:00") else time


def where(plane: RequestedPlane, names: Sequence[str]) -> str:
    """Where a plane is, in words; names are those of plane_names."""
    return f"{names[plane.axis]}axis {plane.axis}, index {plane.index_orig}"


def _minutes_per_plane(rounds: Sequence[Round]) -> float | None:
    timed = [scan for one in rounds for scan in one.scans if scan.minutes is not None and scan.done]
    return sum(scan.minutes or 0.0 for scan in timed) / sum(scan.done for scan in timed) if timed else None


def _scan(
    raw: RawFolder, folder: Path, number: int, scan: RequestedScan, events: Sequence[Event], damaged: Damaged
) -> ScanAsked:
    mine = [e for e in events if e["round"] == number and e.get("scan") == scan.identifier]
    told = [e for e in mine if e["event"] == "answered"]
    answer = _answer(raw, folder, scan.identifier, told, damaged)
    merged = {p for e in merged_now(events, scan.identifier) if e["round"] == number for p in planes_of(e)}
    ever = {p for e in mine if e["event"] == "merged" for p in planes_of(e)}
    names = plane_names(raw, scan.identifier, damaged)
    planes = [
        PlaneAsked(
            asked.plane,
            where(asked, names),
            asked.reason,
            asked.score,
            _state(asked.plane, merged, ever, answer),
            answer is not None and asked.plane in answer.proposal_accepted,
        )
        for asked in scan.planes
    ]
    if answer is None:
        return ScanAsked(scan, planes)
    minutes = answer.seconds / 60 if answer.seconds else None
    when = readable_time(told[-1]["time"]) if told else ""
    return ScanAsked(scan, planes, answer.annotator, answer.tool, when, minutes)


def _answer(raw: RawFolder, folder: Path, identifier: str, told: Sequence[Event], damaged: Damaged) -> Answer | None:
    """The answer that lies in the round's folder, else what the ledger says of one."""
    path = answer_paths(folder, identifier, raw.file_ending)[1]
    if is_answer(path):
        answer = damaged.read(path, read_answer, path)
        if answer is not None:
            return answer
    if not told:
        return None
    last = told[-1]
    accepted = tuple((int(axis), int(index)) for axis, index in last.get("proposal_accepted", ()))
    return Answer(
        identifier, tuple(sorted(planes_of(last))), last["who"], last.get("seconds"), last.get("tool", ""), accepted
    )


def _state(plane: Plane, merged: set[Plane], ever: set[Plane], answer: Answer | None) -> str:
    if plane in merged:
        return MERGED
    if plane in ever:
        return TAKEN_BACK
    return WAITS_FOR_MERGE if answer is not None and plane in answer.planes_done else OPEN


def plane_names(raw: RawFolder, identifier: str, damaged: Damaged) -> list[str]:
    """For each axis what its planes are called, such as "axial, "; empty where the scan's direction is not known."""
    paths = raw.images_of(identifier)
    found = damaged.read(paths[0], raw.read_image, identifier) if paths else None
    direction = direction_of(found[1]) if found else None
    if direction is None:
        return ["", "", ""]
    return [f"{view_across(axis, direction).name}, " for axis in range(3)]
