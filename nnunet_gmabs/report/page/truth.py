"""Dice of predictions where the truth is known, and what a difference between them is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_gmabs.annotation.experts import DENSE_LABELS
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.same_grid import check_same_grid
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.dice import Dice, class_means, mean, scan_means
from nnunet_gmabs.report.dice import dice as dice_of
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.scores import paired_differences, scores_of
from nnunet_gmabs.report.statistics import Comparison, paired_bootstrap

LEVEL = 0.9


@dataclass(frozen=True)
class Predictions:
    """One folder of predictions; the same name more than once is the same method with several seeds."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Scored:
    """Dice of one method with one seed.

    Attributes:
        name: the method.
        seed: counts the folders of that name from 0.
        dice: scan -> class -> Dice.
        without: scans with truth that the folder lacks.
    """

    name: str
    seed: int
    dice: Dice
    without: list[str]

    @property
    def scan_means(self) -> dict[str, float]:
        """For each scan the mean over its classes."""
        return scan_means(self.dice)

    @property
    def class_means(self) -> dict[int, float]:
        """For each class the mean over scans."""
        return class_means(self.dice)

    @property
    def mean(self) -> float:
        """The mean over scans of their means."""
        return mean(self.scan_means.values())


@dataclass(frozen=True)
class Compared:
    """One method against the first one; label None means the mean over classes."""

    name: str
    reference: str
    label: int | None
    result: Comparison

    @property
    def verdict(self) -> str:
        """In words."""
        direction = "better" if self.result.mean > 0 else "worse"
        return {
            "yes": f"{direction}: the interval excludes 0",
            "one seed": f"{direction} with this seed: the interval excludes 0",
            "few scans": "too few scans to tell",
            "no": "not shown: the interval holds 0",
        }[self.result.verdict]


@dataclass(frozen=True)
class TruthTable:
    """All methods on one set of true labels.

    Attributes:
        truth: the folder's name, labelsTs or labelsTr_dense.
        scored: methods and seeds, in the order in which they were named.
        compared: each other method against the first.
        notes: what was left out, for people.
    """

    truth: str
    scored: list[Scored]
    compared: list[Compared] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def scans(self) -> list[str]:
        """Scans of any method, sorted."""
        return sorted({scan for one in self.scored for scan in one.dice})

    @property
    def unseen(self) -> bool:
        """Whether these are test scans."""
        return self.truth == "labelsTs"


def parse_predictions(texts: Sequence[str]) -> list[Predictions]:
    """NAME=FOLDER, or FOLDER whose name is the name then.

    Raises:
        InputError: if there is no such folder.
    """
    found = []
    for text in texts:
        name, _, folder = text.partition("=") if "=" in text and not Path(text).is_dir() else ("", "", text)
        path = Path(folder)
        if not folder or not path.is_dir():
            raise InputError(f"--predictions {text}: {folder or 'nothing'} is no folder; write NAME=FOLDER")
        found.append(Predictions(name or path.resolve().name, path))
    return found


def class_values(raw: RawFolder) -> dict[int, tuple[str, list[int]]]:
    """Foreground classes: key -> (name, values). Regions have a key of their own, their place in dataset.json."""
    named = [(n, v if isinstance(v, list) else [v]) for n, v in raw.labels.items() if n not in ("ignore", "background")]
    regions = any(len(values) > 1 for _, values in named)
    return {
        (place if regions else int(values[0])): (str(name), [int(v) for v in values])
        for place, (name, values) in enumerate(named, 1)
    }


def truth_tables(raw: RawFolder, predictions: Sequence[Predictions], damaged: Damaged) -> list[TruthTable]:
    """A table for labelsTs, and one for labelsTr_dense, with the predictions that belong there."""
    scored: dict[str, list[Scored]] = {}
    notes: dict[str, list[str]] = {}
    seeds: dict[tuple[str, str], int] = {}
    for one in predictions:
        truth = _truth_of(raw, one)
        if truth is None:
            damaged.add(
                f"{one.folder}: none of its files is named as one in {raw.folder / 'labelsTs'} or "
                f"{raw.folder / DENSE_LABELS}, so no Dice can be computed"
            )
            continue
        dice, missing = _score(raw, one, truth, damaged)
        if dice:
            seed = seeds[truth, one.name] = seeds.get((truth, one.name), -1) + 1
            scored.setdefault(truth, []).append(Scored(one.name, seed, dice, missing))
        if missing and truth == "labelsTs":
            notes.setdefault(truth, []).append(f"{one.name} has no prediction for {_some(missing)}.")
    return [_table(truth, found, notes.get(truth, [])) for truth, found in sorted(scored.items(), reverse=True)]


def _table(truth: str, scored: list[Scored], notes: list[str]) -> TruthTable:
    common = set.intersection(*(set(one.dice) for one in scored))
    if any(set(one.dice) != common for one in scored) and len(scored) > 1:
        notes = [*notes, f"Comparisons use the {len(common)} scans that every method has predicted."]
    rows = [
        score
        for one in scored
        for score in scores_of({scan: one.dice[scan] for scan in sorted(common)}, one.name, one.seed)
    ]
    names = list(dict.fromkeys(one.name for one in scored))
    labels = list(next(iter(scored[0].dice.values())))
    compared = []
    for name in names[1:] if common else []:
        for label in [None, *labels] if len(labels) > 1 else [None]:
            differences, _, _ = paired_differences(rows, name, names[0], label)
            if differences.size:
                compared.append(Compared(name, names[0], label, paired_bootstrap(differences, LEVEL)))
    return TruthTable(truth, scored, compared, notes)


def _truth_of(raw: RawFolder, predictions: Predictions) -> str | None:
    names = {path.name for path in predictions.folder.glob(f"*{raw.file_ending}")}
    found = {truth: len(names & {p.name for p in (raw.folder / truth).glob(f"*{raw.file_ending}")})
             for truth in ("labelsTs", DENSE_LABELS)}  # fmt: skip
    best = max(found, key=lambda truth: found[truth])
    return best if found[best] else None


def _score(raw: RawFolder, one: Predictions, truth: str, damaged: Damaged) -> tuple[Dice, list[str]]:
    """Dice of each scan that has both, and scans with truth only."""
    result: Dice = {}
    missing = []
    for path in sorted((raw.folder / truth).glob(f"[!.]*{raw.file_ending}")):
        predicted = one.folder / path.name
        if not predicted.is_file():
            missing.append(path.name.removesuffix(raw.file_ending))
            continue
        values = damaged.read(predicted, _dice, raw, predicted, path)
        if values is not None:
            result[path.name.removesuffix(raw.file_ending)] = values
    return result, missing


def _dice(raw: RawFolder, prediction_file: Path, truth_file: Path) -> dict[int, float]:
    (prediction, grid), (truth, true_grid) = raw.read_labels(prediction_file), raw.read_labels(truth_file)
    if prediction.shape != truth.shape:
        raise InputError(f"{prediction_file}: shape {prediction.shape}, but {truth_file} has {truth.shape}")
    check_same_grid(truth_file, (1, *truth.shape), true_grid, prediction_file, (1, *prediction.shape), grid)
    return {key: _dice_of_values(prediction, truth, values, raw) for key, (_, values) in class_values(raw).items()}


def _dice_of_values(prediction, truth, values: Sequence[int], raw: RawFolder) -> float:
    import numpy as np

    known = truth != raw.ignore_label if raw.ignore_label is not None else np.ones(truth.shape, bool)
    return dice_of(np.isin(prediction, values)[known].astype(int), np.isin(truth, values)[known].astype(int), 1)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) < 4 else f"{shown} and {len(names) - 3} more"


def points(value: float, signed: bool = False) -> str:
    """A Dice value, or a difference, in per cent (points); a dash for NaN.

    >>> points(0.8012), points(-0.012, signed=True), points(float("nan"))
    ('80.1', '−1.2', '–')
    """
    if math.isnan(value):
        return "–"
    return (f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}").replace("-", "−")


def names_of(classes: Mapping[int, tuple[str, list[int]]]) -> dict[int, str]:
    """Key -> name."""
    return {key: name for key, (name, _) in classes.items()}
