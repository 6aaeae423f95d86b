"""The methods' own log: one line an epoch, and a picture of it; nnU-Net's logger takes no new names."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.drawing import new_figure

LOG_FILE = "gmabs_log.csv"
PLOT_FILE = "gmabs_progress.png"


class EpochMeans:
    """Means of named values over the iterations of an epoch; NaN and infinite entries do not count.

    Mixed precision starts with a scale that overflows: the first gradient norms are often infinite.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """One value for each name."""
        for name, value in values.items():
            valid = math.isfinite(value)
            self._sums[name] = self._sums.get(name, 0.0) + (value if valid else 0.0)
            self._counts[name] = self._counts.get(name, 0) + valid

    def take(self, gather: Callable[[Any], list[Any]] = lambda value: [value]) -> dict[str, float]:
        """The means so far, NaN where nothing counted; then starts anew.

        Args:
            gather: gives what several processes have noted, all of them the same; they take at the same time.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for noted_sums, noted_counts in gather((self._sums, self._counts)):
            for name, value in noted_sums.items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + noted_counts[name]
        self._sums, self._counts = {}, {}
        return {name: value / counts[name] if counts[name] else math.nan for name, value in sums.items()}


def write_log(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write the whole history as CSV, one row an epoch, replacing the file atomically."""
    names = list(dict.fromkeys(name for row in history for name in row))

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, names, restval="")
            writer.writeheader()
            writer.writerows(history)

    replace_atomically(folder / LOG_FILE, write)


def plot_log(folder: Path, history: list[dict[str, Any]]) -> None:
    """Draw terms, gradient shares and pseudo Dice over the epochs into gmabs_progress.png."""
    panels = {
        "loss term, before weighting": "loss/",
        "gradient norm, as a share of the supervised one": "gradient_ratio/",
        "weight": "weight/",
        "pseudo Dice on labelled voxels of validation scans": "pseudo_dice/",
        "voxels per batch, as a share": "share/",
    }
    names = list(dict.fromkeys(name for row in history for name in row))
    used = [(title, [n for n in names if n.startswith(prefix)], prefix) for title, prefix in panels.items()]
    used = [panel for panel in used if panel[1]]
    with new_figure(10, 2.2 * len(used)) as figure:
        epochs = [row["epoch"] for row in history]
        for axes, (title, curves, prefix) in zip(figure.subplots(len(used), squeeze=False)[:, 0], used, strict=True):
            for name in curves:
                values = [row.get(name, math.nan) for row in history]
                axes.plot(epochs, values, label=name.removeprefix(prefix), marker="." if len(epochs) < 30 else "")
            axes.set_title(title, loc="left", fontsize=10)
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            axes.grid(alpha=0.3)
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        replace_atomically(folder / PLOT_FILE, lambda path: figure.savefig(path, dpi=110))


def remove_logs(folder: Path) -> None:
    """Remove log and picture of an earlier run."""
    for name in (LOG_FILE, PLOT_FILE):
        (folder / name).unlink(missing_ok=True)
