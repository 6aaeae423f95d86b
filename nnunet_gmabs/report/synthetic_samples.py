"""A picture of synthetic samples, so that a person can judge whether they look like scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.drawing import class_colour, new_figure, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 2.0


@dataclass(frozen=True)
class SyntheticPicture:
    """One row of the picture.

    Attributes:
        identifier: of the scan that is the background.
        before: (X, Y, Z) its image.
        after: (X, Y, Z) the same with objects pasted.
        labels: (X, Y, Z) of the sample.
        unknown: label of what nobody has drawn.
        spacing_mm: of the three axes.
    """

    identifier: str
    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray
    unknown: int
    spacing_mm: Sequence[float]


def draw_synthetic_samples(path: Path, samples: Sequence[SyntheticPicture]) -> None:
    """Write a PNG: for each sample the slice with most foreground across each axis, before and after.

    Contours are the sample's classes; a white line is the border of what is labelled at all.
    """
    with new_figure(6 * PANEL_INCHES, (PANEL_INCHES + 0.2) * len(samples) + 0.3) as figure:
        _draw(figure, samples)
        replace_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def _draw(figure: Figure, samples: Sequence[SyntheticPicture]) -> None:
    panels = figure.subplots(len(samples), 6, squeeze=False)
    for row, sample in zip(panels, samples, strict=True):
        foreground = (sample.labels != sample.unknown) & (sample.labels > 0)
        low, high = np.percentile(sample.before, [0.5, 99.5])
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            index = int(foreground.sum(others).argmax())
            labels = sample.labels.take(index, axis)
            aspect = sample.spacing_mm[others[0]] / sample.spacing_mm[others[1]]
            for panel, image in zip(row[2 * axis :], (sample.before, sample.after), strict=False):
                panel.imshow(image.take(index, axis), cmap="gray", vmin=low, vmax=high, aspect=aspect)
                panel.set_xticks([])
                panel.set_yticks([])
            _contours(row[2 * axis + 1], labels, sample.unknown)
        row[0].set_xlabel(sample.identifier, fontsize=8)
    for number, panel in enumerate(panels[0]):
        panel.set_title(f"axis {number // 2}, {'after' if number % 2 else 'before'}", fontsize=9)


def _contours(panel: Axes, labels: np.ndarray, unknown: int) -> None:
    """Outlines of the classes, and of what is labelled."""
    outline(panel, labels != unknown, "white", 0.6)
    for label in (int(k) for k in np.unique(labels) if k > 0 and k != unknown):
        outline(panel, labels == label, class_colour(label))
