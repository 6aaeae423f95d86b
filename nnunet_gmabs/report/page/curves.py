"""Curves from trainings' logs: one kind of value in a figure, the folds of a model beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.report.drawing import new_figure
from nnunet_gmabs.report.page.images import as_svg
from nnunet_gmabs.report.page.trainings import Training, names_apart
from nnunet_gmabs.report.page.words import PANELS, Panel, curve_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#b08900", "#0b7285", "#c2255c", "#5c940d", "#495057")
# for what would have the same colour; folds of one model differ by them, too
STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
MARKERS = ("", "s", "^", "D", "v", "x")  # for what would have the same colour and style
FEW_POINTS = 30  # so many are marked one by one
MOST_MARKERS = 12  # on a line of more points
MOST_BESIDE = 5


@dataclass(frozen=True)
class Curves:
    """A figure: heading, caption, data address, and whether it needs the whole width."""

    title: str
    meaning: str
    address: str
    wide: bool = False


def model_curves(folds: Sequence[Training], classes: Mapping[int, str]) -> list[Curves]:
    """For each kind of value that is in the logs a figure, one field a fold, all on the same scale."""
    figures = []
    logged = [fold for fold in folds if fold.log][:MOST_BESIDE]
    for panel in PANELS:
        columns = list(dict.fromkeys(c for fold in logged for c in fold.columns(panel.prefixes)))
        if columns:
            address = _draw(logged, panel, columns, classes)
            figures.append(Curves(panel.title, panel.meaning, address, len(logged) > 1))
    return figures


def pseudo_dice_of_all(trainings: Sequence[Training]) -> str | None:
    """A data address: pseudo Dice of the network that predicts, every training in one field; None without any."""
    shown = [t for t in trainings if t.pseudo_dice]
    if not shown:
        return None
    folds: dict[Path, int] = {}  # of each model, so far
    with new_figure(8.2, max(3.2, 0.6 + 0.17 * len(shown))) as figure:
        axes = figure.subplots()
        for training, label in zip(shown, names_apart(shown), strict=True):
            fold = folds[training.folder.parent] = folds.get(training.folder.parent, -1) + 1
            model = list(folds).index(training.folder.parent)
            look = _look(model, fold, model // len(LINE_COLOURS))
            _line(axes, training, training.pseudo_dice, True, label, look)
        axes.set_ylabel("Dice, %")
        _finish(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        return as_svg(figure)


def _draw(folds: Sequence[Training], panel: Panel, columns: Sequence[str], classes: Mapping[int, str]) -> str:
    width = 5.4 if len(folds) == 1 else 2.9 * len(folds)
    with new_figure(width, 2.5 + 0.17 * len(columns)) as figure:
        fields = figure.subplots(1, len(folds), sharey=True, squeeze=False)[0]
        for axes, fold in zip(fields, folds, strict=True):
            for number, column in enumerate(columns):
                style, marker = number // len(LINE_COLOURS), number // (len(LINE_COLOURS) * len(STYLES))
                _line(axes, fold, column, panel.percent, curve_name(column, classes), _look(number, style, marker))
            if len(folds) > 1:
                axes.set_title(f"fold {fold.fold}", loc="left", fontsize=9)
            _finish(axes)
        fields[0].set_ylabel(panel.unit)
        handles, labels = fields[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8, ncols=1)
        return as_svg(figure)


def _look(colour: int, style: int, marker: int) -> dict[str, Any]:
    """Properties of a line; each number goes round its list."""
    lists = {"color": (LINE_COLOURS, colour), "linestyle": (STYLES, style), "marker": (MARKERS, marker)}
    return {name: values[number % len(values)] for name, (values, number) in lists.items()}


def _line(axes: Axes, training: Training, column: str, percent: bool, label: str, look: dict[str, Any]) -> None:
    factor = 100 if percent else 1
    points = [(row["epoch"], factor * row.get(column, math.nan)) for row in training.log]
    points = [point for point in points if math.isfinite(point[1])]  # rounds are not in every epoch
    look = look | {"marker": look["marker"] or ("o" if len(points) < FEW_POINTS else "")}
    every = 1 if len(points) < FEW_POINTS else -(-len(points) // MOST_MARKERS)
    label = f" {label}" if label.startswith("_") else label  # matplotlib hides what begins with one
    xs, ys = [x for x, _ in points], [y for _, y in points]
    axes.plot(xs, ys, linewidth=1.5, markersize=3, markevery=every, label=label, **look)


def _finish(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
