"""A picture of slices with contours: the truth and what each method found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.dice import dice, mean
from nnunet_gmabs.report.drawing import TRUTH_ALPHA, class_colour, new_figure, outline
from nnunet_gmabs.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 2.3
MOST_BELOW = 3  # classes that are named below a panel


@dataclass(frozen=True)
class ScanPicture:
    """One row of the picture.

    Attributes:
        identifier: name of the scan.
        image: (X, Y, Z) intensities.
        truth: (X, Y, Z) integer labels.
        predictions: integer labels by method, each (X, Y, Z).
        spacing_mm: of the three axes.
    """

    identifier: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    spacing_mm: Sequence[float]


def telling_index(truth: np.ndarray, labels: Sequence[int], axis: int = 0) -> int:
    """The slice that shows most of all classes: where the least share of a class's largest area is largest.

    Ties go to the larger sum of shares, then to the lower index.

    Args:
        truth: (X, Y, Z) integers.
        labels: classes; those absent from the scan do not count.
        axis: across which to slice.
    """
    others = tuple(a for a in range(truth.ndim) if a != axis)
    areas = np.array([(truth == label).sum(axis=others) for label in labels], dtype=float)
    shares = areas[areas.max(axis=1) > 0]
    if not len(shares):
        return truth.shape[axis] // 2
    shares /= shares.max(axis=1, keepdims=True)
    return int(max(range(truth.shape[axis]), key=lambda i: (shares[:, i].min(), shares[:, i].sum(), -i)))


def draw_contours(path: Path, scans: Sequence[ScanPicture], names: Mapping[int, str]) -> None:
    """Write a PNG: one row for each scan, the bare slice and then one column for each method.

    Every panel has the scan's true pixel aspect. Truth is a filled area with a thin white contour, a
    prediction a contour in the colour of the class; below each panel stands the Dice of the whole scan.

    Args:
        path: of the PNG.
        scans: at least one, all with the same methods.
        names: classes to show, and what to call them.
    """
    panels_across = len(scans[0].predictions) + 1
    legend_columns = _legend_columns(names, PANEL_INCHES * panels_across)
    legend_rows = -(-len(names) // legend_columns)
    height = (PANEL_INCHES + 0.22) * len(scans) + 0.3 + 0.2 * legend_rows
    with new_figure(PANEL_INCHES * panels_across, height) as figure:
        _draw(figure, scans, names)
        _add_legend(figure, names, legend_columns)
        replace_atomically(path, lambda temporary: figure.savefig(temporary, dpi=130, format="png"))


def _draw(figure: Figure, scans: Sequence[ScanPicture], names: Mapping[int, str]) -> None:
    methods = list(scans[0].predictions)
    panels = figure.subplots(len(scans), len(methods) + 1, squeeze=False)
    for row, scan in zip(panels, scans, strict=True):
        index = telling_index(scan.truth, list(names))
        _show_slice(row[0], scan, index)
        row[0].set_xlabel(f"{scan.identifier}, slice {index}", fontsize=9)
        for panel, method in zip(row[1:], methods, strict=True):
            _show_slice(panel, scan, index)
            _show_labels(panel, scan.truth[index], scan.predictions[method][index], list(names))
            panel.set_xlabel(_dice_below(scan, method, names), fontsize=9)
    for panel, title in zip(panels[0], ["image", *methods], strict=True):
        panel.set_title(title, fontsize=10)


def _dice_below(scan: ScanPicture, method: str, names: Mapping[int, str]) -> str:
    """Dice of every class, or of many classes the mean, which fits below a panel."""
    values = {name: dice(scan.predictions[method], scan.truth, label) for label, name in names.items()}
    if len(names) > MOST_BELOW:
        return f"mean {percent(mean(values.values()))}"
    return ", ".join(f"{name} {percent(value)}" for name, value in values.items())


def _legend_columns(names: Mapping[int, str], width_inches: float) -> int:
    """How many classes are beside each other, each as truth and as prediction; a letter takes 0.065 inches."""
    inches = 2 * (0.5 + 0.065 * max(len(f"{name}: prediction") for name in names.values()))
    return min(len(names), max(1, int(width_inches / inches)))


def _add_legend(figure: Figure, names: Mapping[int, str], columns: int) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = []
    for label, name in names.items():
        colour = class_colour(label)
        handles.append(Patch(facecolor=to_rgba(colour, TRUTH_ALPHA), edgecolor="0.6", label=f"{name}: truth"))
        handles.append(Line2D([], [], color=colour, linewidth=1.8, label=f"{name}: prediction"))
    figure.legend(
        handles=handles,
        title="Below each panel: Dice of the whole scan, %",
        loc="outside lower center",
        ncols=2 * columns,
        fontsize=9,
        title_fontsize=9,
        frameon=False,
    )


def _show_slice(panel: Axes, scan: ScanPicture, index: int) -> None:
    low, high = np.percentile(scan.image, [0.5, 99.5])
    aspect = scan.spacing_mm[1] / scan.spacing_mm[2]
    panel.imshow(scan.image[index], cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)


def _show_labels(panel: Axes, truth: np.ndarray, prediction: np.ndarray, labels: Sequence[int]) -> None:
    for label in labels:
        colour = class_colour(label)
        if min(truth.shape) > 1 and (truth == label).any():
            panel.contourf(truth == label, levels=[0.5, 1.5], colors=[colour], alpha=TRUTH_ALPHA)
        outline(panel, truth == label, "white", 0.8)
        outline(panel, prediction == label, colour, 1.8)
