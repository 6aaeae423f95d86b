"""Trainings of a data set, read from nnU-Net's result folders: settings, logs, pictures, validation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.page.images import png_file
from nnunet_gmabs.report.page.reading import Damaged, Row, read_dictionary, read_log
from nnunet_gmabs.settings import flatten

LOG_FILE, SETTINGS_FILE = "gmabs_log.csv", "gmabs.json"  # as trainers/progress.py and trainers/resumable.py write them
PROMPTS, SYNTHETIC = "prompts_round_*.png", "synthetic_samples.png"


@dataclass(frozen=True)
class Picture:
    """A picture for the page: what it shows, and its data address."""

    title: str
    address: str


@dataclass(frozen=True)
class Training:
    """One fold of one trainer.

    Attributes:
        folder: nnU-Net's fold_X.
        trainer, plans, configuration: parts of the name of the folder above.
        fold: such as "0" or "all".
        settings: "group.name" -> value; empty without gmabs.json.
        versions: program -> version.
        log: one row an epoch; empty without gmabs_log.csv.
        validation_dice: nnU-Net's mean foreground Dice of the final validation, on what is labelled; NaN without it.
        prompts, synthetic: pictures.
        state: in words, how far the training is.
    """

    folder: Path
    trainer: str
    plans: str
    configuration: str
    fold: str
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    log: list[Row] = field(default_factory=list)
    validation_dice: float = math.nan
    prompts: list[Picture] = field(default_factory=list)
    synthetic: list[Picture] = field(default_factory=list)
    state: str = ""

    @property
    def model(self) -> str:
        """Trainer, plans and configuration: trainings of one model differ in the fold only."""
        return ", ".join(filter(None, (self.trainer, self.plans, self.configuration)))

    @property
    def title(self) -> str:
        """Trainer, plans, configuration and fold, for headings."""
        return f"{self.model}, fold {self.fold}"

    @property
    def network(self) -> str:
        """Which network nnU-Net predicts with."""
        return str(self.settings.get("inference_network", ""))

    def last(self, column: str) -> float:
        """The newest value of a column of the log; NaN where there is none."""
        values = [row[column] for row in self.log if math.isfinite(row.get(column, math.nan))]
        return values[-1] if values else math.nan

    def columns(self, prefixes: Iterable[str]) -> list[str]:
        """Columns of the log that begin so and hold a number, in the log's order."""
        names = list(dict.fromkeys(name for row in self.log for name in row))
        return [n for n in names if n.startswith(tuple(prefixes)) and math.isfinite(self.last(n))]

    @property
    def pseudo_dice(self) -> str:
        """The log's column with pseudo Dice of the network that predicts; "" where there is none."""
        columns = self.columns(("pseudo_dice/",))
        wanted = f"pseudo_dice/{self.network}"
        return wanted if wanted in columns else (columns[0] if columns else "")

    @property
    def rounds(self) -> int:
        """Rounds of relabelling in the log."""
        return sum(math.isfinite(row.get("round/scans", math.nan)) for row in self.log)


def find_trainings(results: Path) -> list[Path]:
    """All fold folders below a data set's result folder, sorted; empty where there are none."""
    return sorted(path for path in results.glob("*/fold_*") if path.is_dir())


def named_trainings(folders: Iterable[Path]) -> list[Path]:
    """Fold folders that are named themselves, or by the model's folder above them.

    Raises:
        InputError: if a folder is neither.
    """
    found: list[Path] = []
    for folder in folders:
        own = [folder] if folder.name.startswith("fold_") and folder.is_dir() else sorted(folder.glob("fold_*"))
        if not own:
            raise InputError(f"--from {folder}: holds no fold_*; name nnU-Net's folder of a training, or a fold in it")
        found += [path.resolve() for path in own]
    return list(dict.fromkeys(found))


def read_training(folder: Path, damaged: Damaged) -> Training:
    """What one fold's folder tells; what is damaged is noted and left out."""
    trainer, plans, configuration = (folder.parent.name.split("__") + ["", ""])[:3]
    record = _optional(folder / SETTINGS_FILE, read_dictionary, damaged) or {}
    log = _optional(folder / LOG_FILE, read_log, damaged) or []
    settings = flatten(record["config"]) if isinstance(record.get("config"), dict) else {}
    versions = record.get("versions") if isinstance(record.get("versions"), dict) else {}
    summary = folder / "validation" / "summary.json"
    dice = _optional(summary, lambda path: float(read_dictionary(path)["foreground_mean"]["Dice"]), damaged)
    return Training(
        folder=folder,
        trainer=trainer,
        plans=plans,
        configuration=configuration,
        fold=folder.name.removeprefix("fold_"),
        settings=settings,
        versions=versions or {},
        log=log,
        validation_dice=math.nan if dice is None else dice,
        prompts=_pictures(_first_and_last(sorted(folder.glob(PROMPTS))), damaged),
        synthetic=_pictures(sorted(folder.glob(SYNTHETIC)), damaged),
        state=_state(folder, log, settings),
    )


def by_model(trainings: Sequence[Training]) -> list[list[Training]]:
    """Folds of the same model together, in order."""
    ordered = sorted(trainings, key=lambda t: (str(t.folder.parent), t.fold))
    return [list(group) for _, group in groupby(ordered, key=lambda t: t.folder.parent)]


def names_apart(trainings: Sequence[Training]) -> list[str]:
    """What to call each training beside the others: the trainer without nnU-Net's prefix, what differs, the fold."""

    def differing(parts: Sequence[str]) -> Sequence[str]:
        return parts if len(set(parts)) > 1 else [""] * len(parts)

    above = [
        training.folder.parent.parent for training in trainings
    ]  # the data set's results, of which there may be more
    common = os.path.commonpath(above) if above else ""
    columns = (
        [training.trainer.removeprefix("nnUNetTrainer") or training.trainer for training in trainings],
        differing([training.configuration for training in trainings]),
        differing([training.plans for training in trainings]),
        differing([os.path.relpath(folder, common) for folder in above]),
        [f"fold {training.fold}" for training in trainings],
    )
    return [", ".join(filter(None, parts)) for parts in zip(*columns, strict=True)]


def compare_settings(trainings: Sequence[Training]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """Rows (setting, value in each training): those that differ between trainings, and those that are the same."""
    names = list(dict.fromkeys(name for training in trainings for name in training.settings))
    rows = [(name, [_value(training, name) for training in trainings]) for name in names]
    differing = [row for row in rows if len(set(row[1])) > 1]
    return differing, [row for row in rows if len(set(row[1])) == 1]


def _value(training: Training, name: str) -> str:
    if name not in training.settings:
        return "off" if any(name.startswith(f"{group}.") for group in _off(training)) else "–"
    return _words(training.settings[name])


def _words(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _off(training: Training) -> list[str]:
    return [name for name, value in training.settings.items() if value is None]


def _optional(path: Path, read: Any, damaged: Damaged) -> Any:
    return damaged.read(path, read, path) if path.is_file() else None


def _first_and_last(paths: list[Path]) -> list[Path]:
    return paths if len(paths) < 3 else [paths[0], paths[-1]]


def _pictures(paths: Sequence[Path], damaged: Damaged) -> list[Picture]:
    found = [(path, damaged.read(path, png_file, path)) for path in paths]
    return [Picture(path.stem.replace("_", " "), address) for path, address in found if address is not None]


def _state(folder: Path, log: Sequence[Row], settings: dict[str, Any]) -> str:
    if (folder / "checkpoint_final.pth").is_file():
        return "finished"
    planned = settings.get("num_epochs")
    if not log:
        return "not finished, no epoch logged"
    return f"not finished: {len(log)} of {planned} epochs" if planned else f"not finished: {len(log)} epochs"
