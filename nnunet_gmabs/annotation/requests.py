"""What an expert is asked to draw, and what comes back: the folder gmabs/requests/round_NNN of a raw data set.

    request.json                 scans and planes, with the reasons for them; never changed once it is there
    proposals/<scan>             the specialist's prediction, where there was one
    answers/<scan>               labels on the scan's own grid: what was drawn on the done planes, else ignore
    answers/<scan>.json          which planes are done, by whom; written last, so an answer without it has not arrived
                                 (of .tif it holds the spacing, too, where nnU-Net looks for it)

Axes and indices are in nnU-Net's order, on the scan's own grid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nnunet_gmabs.annotation.planes import Plane, PlaneRef
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

VERSION = 1
SPACING = "spacing"  # what nnU-Net's writer of .tif files puts into <name>.json beside them
T = TypeVar("T")


@dataclass(frozen=True)
class RequestedPlane:
    """One plane to draw.

    Attributes:
        axis: 0, 1 or 2.
        index_orig: place on it.
        score: what the strategy counted, None where it counts nothing.
        reason: why this plane, for people.
    """

    axis: int
    index_orig: int
    score: float | None = None
    reason: str = ""

    @property
    def plane(self) -> Plane:
        """The pair (axis, index_orig)."""
        return self.axis, self.index_orig


@dataclass(frozen=True)
class RequestedScan:
    """One scan to draw in.

    Attributes:
        identifier: nnU-Net's name of the scan.
        images: its files, one a channel, relative to the data set's folder.
        planes: what to draw, in the order in which it is best drawn.
        score: what the strategy counted, None where it counts nothing.
        reason: why this scan, for people.
        proposal: the specialist's labels, relative to the round's folder; None where there was no specialist.
    """

    identifier: str
    images: tuple[str, ...]
    planes: tuple[RequestedPlane, ...]
    score: float | None = None
    reason: str = ""
    proposal: str | None = None


@dataclass(frozen=True)
class Request:
    """One round of questions.

    Attributes:
        round: its number, from 0.
        created: time in ISO format, UTC.
        strategy: name of the strategy that chose.
        seed: what it drew with.
        scans: what to draw.
        model: folder of the model that was asked, None where none was.
    """

    round: int
    created: str
    strategy: str
    seed: int
    scans: tuple[RequestedScan, ...]
    model: str | None = None

    def planes_of(self, identifier: str) -> list[Plane]:
        """The planes asked for in one scan; empty for a scan that is not in this round."""
        return [plane.plane for scan in self.scans if scan.identifier == identifier for plane in scan.planes]

    @property
    def number_of_planes(self) -> int:
        """Planes in the whole round."""
        return sum(len(scan.planes) for scan in self.scans)


@dataclass(frozen=True)
class Answer:
    """What an expert says about one scan; the labels lie beside it in a file of their own.

    Attributes:
        identifier: nnU-Net's name of the scan.
        planes_done: planes that are drawn completely: what is not painted on them is background.
        annotator: who drew.
        seconds: time spent, None where nobody measured it.
        tool: what it was drawn with.
        proposal_accepted: planes on which the specialist's proposal was taken over.
    """

    identifier: str
    planes_done: tuple[Plane, ...]
    annotator: str
    seconds: float | None = None
    tool: str = ""
    proposal_accepted: tuple[Plane, ...] = ()


def request_scan(raw: RawFolder, scan: Any, planes: Iterable[Any]) -> RequestedScan:
    """A strategy's choice as a part of a request.

    Args:
        raw: the data set.
        scan: an active.select.ChosenScan, or what has the same attributes; the arrow from active to annotation
            allows no more here.
        planes: active.planes.ChosenPlane, likewise.
    """
    return RequestedScan(
        scan.identifier,
        tuple(path.relative_to(raw.folder).as_posix() for path in raw.images_of(scan.identifier)),
        tuple(RequestedPlane(p.axis, p.index_orig, p.score, p.reason) for p in planes),
        scan.score,
        scan.reason,
    )


def requests_folder(data_set: Path) -> Path:
    """Where the rounds of a raw data set are."""
    return Path(data_set) / "gmabs" / "requests"


def round_folder(data_set: Path, number: int) -> Path:
    """Where one round is."""
    return requests_folder(data_set) / f"round_{number:03d}"


def existing_rounds(data_set: Path) -> list[int]:
    """The numbers of all rounds that were asked, sorted; a copy that somebody kept beside them is none."""
    found = requests_folder(data_set).glob("round_*/request.json")
    numbers = (re.fullmatch(r"round_(\d{3}|[1-9]\d{3,})", path.parent.name) for path in found)
    return sorted(int(number[1]) for number in numbers if number)


def write_request(folder: Path, request: Request) -> None:
    """Write request.json into a round's folder, which must exist."""
    content = {"version": VERSION} | asdict(request)
    write_json(folder / "request.json", content)


def read_request(data_set: Path, number: int) -> Request:
    """One round of a raw data set.

    Raises:
        InputError: if it does not exist, or cannot be understood.
    """
    path = round_folder(data_set, number) / "request.json"
    if not path.is_file():
        asked = ", ".join(map(str, existing_rounds(data_set))) or "none yet; run `gmabs ask`"
        raise InputError(f"{path}: there is no round {number}; rounds asked: {asked}")
    return _read(path, _parse_request)


def answer_paths(folder: Path, identifier: str, file_ending: str) -> tuple[Path, Path]:
    """Where the labels of an answer are, and what is said about them; folder is the round's."""
    answers = Path(folder) / "answers"
    return answers / f"{identifier}{file_ending}", answers / f"{identifier}.json"


def write_answer(
    raw: RawFolder, number: int, answer: Answer, labels: np.ndarray, properties: dict[str, Any]
) -> tuple[Path, Path]:
    """Write an answer, or write it anew; it counts as arrived from the moment its .json is there.

    Args:
        raw: the data set.
        number: the round.
        answer: what is said about the labels.
        labels: (X, Y, Z) integers; the ignore label wherever no done plane is.
        properties: nnU-Net's, of the scan's image.

    Returns:
        The two files.
    """
    labels_file, answer_file = answer_paths(round_folder(raw.folder, number), answer.identifier, raw.file_ending)
    labels_file.parent.mkdir(exist_ok=True)
    raw.write_labels(labels, labels_file, properties)
    content = asdict(answer) | {name: _planes_out(getattr(answer, name)) for name in _PLANE_FIELDS}
    if answer_file.is_file() and not is_answer(answer_file):
        content |= json.loads(answer_file.read_text(encoding="utf-8"))
    write_json(answer_file, content)
    return labels_file, answer_file


def is_answer(path: Path) -> bool:
    """Whether an answer has arrived: its .json is there, and holds more than the spacing of a .tif file."""
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))) != {SPACING}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError):
        return True  # a damaged one has arrived; read_answer says what is wrong


def read_answer(path: Path) -> Answer:
    """What an expert says about one scan.

    Args:
        path: answers/<scan>.json.

    Raises:
        InputError: if it cannot be read or understood.
    """
    return _read(path, _parse_answer)


def request_from(content: dict[str, Any]) -> Request:
    """A request from what dataclasses.asdict made of it; what JSON holds may be used up.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is none.
    """
    scans = tuple(_parse_scan(scan) for scan in content.pop("scans"))
    return Request(scans=scans, **content)


def arrived_answers(folder: Path) -> list[Answer]:
    """All answers of a round, sorted by scan; folder is the round's."""
    return [read_answer(path) for path in sorted((Path(folder) / "answers").glob("*.json")) if is_answer(path)]


_PLANE_FIELDS = ("planes_done", "proposal_accepted")


def _planes_out(planes: Iterable[Plane]) -> list[dict[str, int]]:
    return [{"axis": axis, "index_orig": index} for axis, index in planes]


def _planes_in(identifier: str, planes: list[dict[str, int]]) -> tuple[Plane, ...]:
    return tuple(PlaneRef(identifier, int(p["axis"]), int(p["index_orig"])).plane for p in planes)


def _read(path: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        return parse(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not usable ({error!r}); restore the file, or ask again") from error


def _parse_request(content: dict[str, Any]) -> Request:
    version = content.pop("version")
    if version != VERSION:
        raise ValueError(f"version is {version!r}, this program knows {VERSION}; update it")
    return request_from(content)


def _parse_scan(content: dict[str, Any]) -> RequestedScan:
    planes = tuple(RequestedPlane(**plane) for plane in content.pop("planes"))
    for plane in planes:
        PlaneRef(content["identifier"], *plane.plane)  # raises on what is no plane
    return RequestedScan(planes=planes, images=tuple(content.pop("images")), **content)


def _parse_answer(content: dict[str, Any]) -> Answer:
    content.pop(SPACING, None)
    for name in _PLANE_FIELDS:
        content[name] = _planes_in(content["identifier"], content[name])
    return Answer(**content)
