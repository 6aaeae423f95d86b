"""Dice values in a tidy CSV file: one row for each experiment, seed, scan and class."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.dice import Dice, mean


@dataclass(frozen=True)
class Score:
    """One Dice value.

    Attributes:
        cell: the experiment.
        seed: its seed.
        scan: identifier.
        label: class.
        dice: in [0, 1]; nan where neither truth nor prediction has the class.
        seconds: time of the training, nan if not known.
        iterations: of the training, 0 if not known.
    """

    cell: str
    seed: int
    scan: str
    label: int
    dice: float
    seconds: float = float("nan")
    iterations: int = 0


# In the file the column is called class, a word Python keeps for itself.
_COLUMNS = ["class" if field.name == "label" else field.name for field in fields(Score)]


def scores_of(dice: Dice, cell: str, seed: int = 0, seconds: float = float("nan"), iterations: int = 0) -> list[Score]:
    """The rows of one set of predictions."""
    return [
        Score(cell, seed, scan, label, value, seconds, iterations)
        for scan, by_label in dice.items()
        for label, value in by_label.items()
    ]


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write all rows, replacing the file atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(_COLUMNS)
            writer.writerows(asdict(score).values() for score in scores)

    replace_atomically(path, write)


def read_scores(path: Path, column: str = "dice") -> list[Score]:
    """All rows of a file that have a Dice. Columns but scan, class and it may be missing; cell is then the file's name.

    Args:
        path: of the file.
        column: that holds the Dice; rows in which it is empty are left out.

    Raises:
        InputError: if the file cannot be understood.
    """
    try:
        with open(path, newline="", encoding="utf-8") as f:
            return [
                Score(
                    row.get("cell") or path.stem,
                    int(row.get("seed") or 0),
                    row["scan"],
                    int(row["class"]),
                    float(row[column]),
                    float(row.get("seconds") or "nan"),
                    int(row.get("iterations") or 0),
                )
                for row in csv.DictReader(f)
                if row[column]
            ]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a table of scores ({error!r}); gmabs evaluate --csv writes one") from error


def scan_dice(scores: Iterable[Score], cell: str, label: int | None = None) -> dict[int, dict[str, float]]:
    """Dice of one cell as {seed: {scan: value}}, of one class or (None) the mean over the scan's classes.

    Raises:
        InputError: if a class of a scan has two values, as when two methods go by one name.
    """
    values: dict[int, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        if score.cell == cell and label in (None, score.label):
            if score.label in values[score.seed][score.scan]:
                raise InputError(
                    f"{cell}, seed {score.seed}: two values for class {score.label} of {score.scan}; "
                    "give two methods two names (of files, or in column cell), two trainings two seeds"
                )
            values[score.seed][score.scan][score.label] = score.dice
    return {
        seed: {scan: mean(dice.values()) for scan, dice in by_scan.items()} for seed, by_scan in sorted(values.items())
    }


def paired_differences(
    scores: Sequence[Score], cell: str, reference: str, label: int | None = None
) -> tuple[np.ndarray, list[int], list[str]]:
    """Dice of one cell minus that of another, for each seed and scan that both have.

    Where the truth lacks a class, who invents it has Dice 0, and who does not has no value (nan): there it counts as 1,
    so that seeing that there is nothing is better than inventing something.

    Args:
        scores: rows of both cells.
        cell: name of the one.
        reference: name of the other.
        label: one class, or None for the mean over the scan's classes.

    Returns:
        (seeds, scans) float, the seeds, the scans. Scans in which nobody has a value with any seed (neither the truth
        nor any prediction has the class) are left out. Where each seed was tested on scans of its own, as many each, a
        column holds one scan of each seed: who draws columns at random then draws independent scans.

    Raises:
        InputError: if they share no seed, or were tested on different scans with one seed.
    """
    first, second = scan_dice(scores, cell, label), scan_dice(scores, reference, label)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise InputError(f"{cell} and {reference} have no seed in common: {sorted(first)} and {sorted(second)}")
    own = {seed: sorted(first[seed]) for seed in seeds}
    scans = own[seeds[0]]
    for seed in seeds:
        if sorted(second[seed]) != own[seed]:
            raise InputError(f"{reference}, seed {seed}: tested on other scans than {cell}, seed {seed}")
        if len(own[seed]) != len(scans):
            raise InputError(
                f"{cell}: tested on {len(scans)} scans with seed {seeds[0]} and on {len(own[seed])} with seed {seed}"
            )
    if any(of != scans for of in own.values()):
        scans = [f"{i + 1}. of each seed" for i in range(len(scans))]
    both = np.array([[[values[seed][scan] for scan in own[seed]] for seed in seeds] for values in (first, second)])
    kept = ~np.isnan(both).all(axis=(0, 1))
    ours, others = np.nan_to_num(both[:, :, kept], nan=1.0)
    return ours - others, seeds, [scan for scan, keep in zip(scans, kept, strict=True) if keep]
