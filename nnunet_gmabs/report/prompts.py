"""A picture of what a generalist was shown, what it was asked, and what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.drawing import new_figure, outline

if TYPE_CHECKING:
    from nnunet_gmabs.generalist.votes import Example

COLUMNS = 3
PANEL_INCHES = 3.2


def draw_prompts(path: Path, examples: Sequence[Example]) -> None:
    """Write a PNG: a panel a slice, with the box, points inside (+) and outside (x), and the mask's outline.

    Args:
        path: of the picture; replaced atomically.
        examples: at least one.
    """
    from matplotlib.patches import Rectangle

    rows = -(-len(examples) // COLUMNS)
    with new_figure(COLUMNS * PANEL_INCHES, rows * PANEL_INCHES) as figure:
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, example in zip(panels, examples, strict=False):
            axes.imshow(example.slice_2d[..., 1], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            x0, y0, x1, y1 = example.prompt.box_xyxy
            axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec="#ff9f1c", lw=1.2))
            for label, marker, colour in ((1, "+", "#7ae582"), (0, "x", "#ff4d6d")):
                points = np.asarray(example.prompt.points_xy)[np.asarray(example.prompt.point_labels) == label]
                axes.scatter(points[:, 0], points[:, 1], marker=marker, c=colour, s=28, linewidths=1.2)
            outline(axes, example.mask, "#2ec4ff")
            axes.set_title(example.title, fontsize=7)
        figure.suptitle("What the generalist saw: box, points (+ inside, x outside), and its mask (blue)", fontsize=9)
        replace_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
