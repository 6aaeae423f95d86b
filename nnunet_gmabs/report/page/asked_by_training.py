"""What trainings asked: a simulated expert, whose rounds lie in the training's own folder, or persons, by round."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_gmabs.annotation.planes import Plane, drawn_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedScan, request_from
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.page.asked import MISSING, SIMULATED, PlaneAsked, Round, ScanAsked, plane_names, where
from nnunet_gmabs.report.page.reading import Damaged, Row
from nnunet_gmabs.report.page.trainings import Training

ASKED_FILE, ANSWERS = "asked.json", "expert"  # as trainers/asking.py writes them
AGREEMENT = "round/expert_dice/class_"


@dataclass(frozen=True)
class TrainingRound:
    """One round.

    Attributes:
        round: what was asked, and what came of it.
        epochs_trained: before it was asked; None where an older version wrote the file.
        agreement: Dice of generalist and expert, mean of the classes, at the last relabelling before; NaN without one.
    """

    round: Round
    epochs_trained: int | None
    agreement: float


@dataclass(frozen=True)
class AskedByTraining:
    """All rounds of one training.

    Attributes:
        training: who asked.
        simulated: whether a simulated expert was asked; else persons were, and rounds have no scans here.
        rounds: at least one.
        minutes_per_plane: of a person.
    """

    training: Training
    simulated: bool
    rounds: list[TrainingRound]
    minutes_per_plane: float

    @property
    def planes(self) -> int:
        """Planes asked for."""
        return sum(one.round.request.number_of_planes for one in self.rounds)

    @property
    def done(self) -> int:
        """Planes drawn."""
        return sum(one.round.done for one in self.rounds)

    @property
    def scans(self) -> int:
        """Scans asked for, each once."""
        return len({scan.identifier for one in self.rounds for scan in one.round.request.scans})

    @property
    def budget(self) -> int | None:
        """Planes that this training may ask for; None where its settings are not known."""
        return self.training.settings.get("active.budget_planes")

    @property
    def scored(self) -> bool:
        """Whether the strategy gave scores to scans."""
        return any(one.round.scored for one in self.rounds)


def read_asked(folder: Path) -> list[tuple[Request, int | None]]:
    """Each request of one training (a fold's folder), and after how many epochs it was made; empty where none was.

    Raises:
        InputError: if the file cannot be understood.
    """
    path = folder / ASKED_FILE
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        epochs = [request.pop("epochs_trained", None) for request in content]
        return [(request_from(request), trained) for request, trained in zip(content, epochs, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not usable ({error!r}); the training's next question writes it anew") from error


def asked_simulated(folder: Path) -> bool:
    """Whether a training that has asked (a fold's folder) asked a simulated expert; its answers are there at once."""
    return (folder / ANSWERS).is_dir()


def asked_by(raw: RawFolder, training: Training, minutes_per_plane: float, damaged: Damaged) -> AskedByTraining | None:
    """What one training asked; None where it did not ask."""
    asked = damaged.read(training.folder / ASKED_FILE, read_asked, training.folder)
    if not asked:
        return None
    simulated, folder = asked_simulated(training.folder), training.folder / ANSWERS
    rounds = []
    for request, trained in asked:
        scans = [_answered(raw, folder, scan, damaged) for scan in request.scans] if simulated else []
        agreement = agreement_before(training.log, trained)
        rounds.append(TrainingRound(Round(request, folder, "", scans), trained, agreement))
    return AskedByTraining(training, simulated, rounds, minutes_per_plane)


def agreement_before(log: Sequence[Row], epochs_trained: int | None) -> float:
    """Dice of generalist and expert at the last relabelling of the first epochs, mean of classes; NaN without one."""
    for row in reversed(log):
        if epochs_trained is not None and row["epoch"] < epochs_trained:
            dice = [value for name, value in row.items() if name.startswith(AGREEMENT) and math.isfinite(value)]
            if dice:
                return sum(dice) / len(dice)
    return math.nan


def _answered(raw: RawFolder, folder: Path, scan: RequestedScan, damaged: Damaged) -> ScanAsked:
    drawn = _drawn(raw, folder / raw.label_path(scan.identifier).name, damaged)
    names = plane_names(raw, scan.identifier, damaged)
    planes = [
        PlaneAsked(p.plane, where(p, names), p.reason, p.score, SIMULATED if p.plane in drawn else MISSING, False)
        for p in scan.planes
    ]
    return ScanAsked(scan, planes)


def _drawn(raw: RawFolder, path: Path, damaged: Damaged) -> list[Plane]:
    """Complete planes in an answer; none where there is no answer, or it is damaged."""
    if raw.ignore_label is None or not path.is_file():
        return []
    found = damaged.read(path, raw.read_labels, path)
    return [] if found is None else drawn_planes(found[0], raw.ignore_label)
