"""The file that says what a benchmark trains: labels, rows, seeds (see scripts/benchmark.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from nnunet_gmabs.annotation.sparsify import ROI_MIDDLE
from nnunet_gmabs.demo.stock import BASES, Schedule
from nnunet_gmabs.errors import InputError

ALL_DENSE = "all scans, dense"
PRECISION = "cpu_bfloat16"  # a setting that belongs to the machine, not to what is compared
SEEDS = range(10)  # a seed is the last digit of a data set's number


@dataclass(frozen=True)
class Labels:
    """What is drawn: planes of scans.

    Attributes:
        scans: labelled training scans.
        planes: drawn in each; "all": the whole scan.
        position: of the planes, see annotation/sparsify.py.
        seeds: None: the grid's.
        settings: of our trainers with these labels, such as how many planes they may ask for.
    """

    scans: int
    planes: int | str = 3
    position: str = ROI_MIDDLE
    seeds: list[int] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A trainer and its settings.

    Attributes:
        trainer: name for -tr, "stock", or "stock, no mirroring" (nnUNetTrainerNoMirroring, of the same length).
        settings: of our trainers, beside length and seed.
        labels: names of the grid's labels; None: all of them; "dense": all training scans, labelled densely.
        seeds: None: those of the labels.
    """

    trainer: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | str | None = None
    seeds: list[int] | None = None

    def is_of(self, labels: str) -> bool:
        """Whether the row is meant for labels of that name."""
        if labels == ALL_DENSE:
            return self.labels == "dense"
        return self.labels is None or labels in ([self.labels] if isinstance(self.labels, str) else self.labels)


@dataclass(frozen=True)
class Grid:
    """A benchmark's configuration file."""

    dataset: str
    iterations: int
    seeds: list[int]
    labels: dict[str, Labels]
    rows: dict[str, Row]
    claims: list[list[str]] = field(default_factory=list)
    plans: dict[str, Any] | None = None  # cpu_seconds, batch_size; None: nnU-Net's own plans
    settings: dict[str, Any] = field(default_factory=dict)  # of every row of ours; the labels' and the row's own win
    test_scans: int = 0
    judge_unlabelled: int | None = None
    spacing_mm: list[float] | None = None  # of the axes in nnU-Net's order; None: as the scans are
    nsd_tolerance_mm: float = 1.0

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read and check the file."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        grid = _build(cls, content, str(path))
        labels = {name: _build(Labels, value, f"{path}: labels: {name}") for name, value in grid.labels.items()}
        rows = {name: _build(Row, value, f"{path}: rows: {name}") for name, value in grid.rows.items()}
        for name, row in rows.items():
            unknown = set(row.labels if isinstance(row.labels, list) else ()) - set(labels)
            if unknown:
                raise InputError(f"{path}: rows: {name}: labels {unknown.pop()} are not among {', '.join(labels)}")
        for seed in {seed for part in (grid, *labels.values(), *rows.values()) for seed in part.seeds or ()}:
            if seed not in SEEDS:
                raise InputError(f"{path}: seeds: {seed}: must be within 0 to 9")
        for claim in grid.claims:
            if len(claim) != 2 or not set(claim) <= set(rows):
                raise InputError(f"{path}: claims: {claim}: must be the names of two rows")
        return cls(**{**grid.__dict__, "labels": labels, "rows": rows})

    @property
    def schedule(self) -> Schedule:
        """How long every training is."""
        return Schedule.of(self.iterations)

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """All settings of a training of ours, but for the machine's precision; stock nnU-Net has none."""
        if self.rows[cell.row].trainer in BASES:
            return {}
        settings: dict[str, Any] = {
            "num_epochs": self.schedule.epochs,
            "num_iterations_per_epoch": self.schedule.iterations_per_epoch,
            "num_val_iterations_per_epoch": self.schedule.val_iterations_per_epoch,
            "save_every": self.schedule.epochs,
            "seed": cell.seed,
        }
        labels = self.labels.get(cell.labels)  # none: all scans, dense
        for more in (self.settings, labels.settings if labels else {}, self.rows[cell.row].settings):
            for key, value in more.items():
                settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        return settings

    def data(self, labels_name: str) -> dict[str, Any]:
        """What a training sees and is judged on; results compare only where this is alike but for what is drawn."""
        labels = self.labels.get(labels_name)  # none: all scans, dense
        drawn = {"scans": labels.scans, "planes": labels.planes, "position": labels.position} if labels else None
        names = ("dataset", "plans", "spacing_mm", "test_scans", "judge_unlabelled", "nsd_tolerance_mm")
        return {**{name: getattr(self, name) for name in names}, "drawn": drawn}

    def is_alike(self, result: dict[str, Any], cell: Cell) -> bool:
        """Whether a result is of the cell as the grid has it now: all but the precision."""
        settings = {name: value for name, value in result["settings"].items() if name != PRECISION}
        theirs = (result["trainer"], settings, result["iterations"], result["data"])
        return theirs == (
            self.rows[cell.row].trainer, self.settings_of(cell), self.schedule.iterations, self.data(cell.labels)
        )  # fmt: skip

    def todays(self, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results that are of cells as the grid has them now."""
        cells = {(c.row, c.labels, c.seed): c for c in self.cells()}
        found = ((cells.get((r["row"], r["labels"], r["seed"])), r) for r in results)
        return [result for cell, result in found if cell and self.is_alike(result, cell)]

    def cells(self) -> list[Cell]:
        """All trainings, those of one seed together so that every claim is soon about one whole seed."""
        cells = []
        for row_name, row in self.rows.items():
            if row.labels == "dense":
                cells += [Cell(row_name, ALL_DENSE, seed) for seed in row.seeds or self.seeds]
                continue
            for name in row.labels or self.labels:
                cells += [Cell(row_name, name, s) for s in row.seeds or self.labels[name].seeds or self.seeds]
        order = list(self.labels)
        return sorted(cells, key=lambda c: (order.index(c.labels) if c.labels in order else len(order), c.seed))


def _build(kind: type, content: Any, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(content, dict) or set(content) - known:
        raise InputError(f"{where}: {content!r:.80}: must have keys among {', '.join(sorted(known))}")
    try:
        return kind(**content)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Cell:
    """One training."""

    row: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """For files."""
        return "_".join(re.sub(r"\W+", "-", part) for part in (self.labels, self.row, f"seed{self.seed}"))
