"""What all pictures share: a figure that no style of others reaches, a colour for every class, outlines."""

from __future__ import annotations

import colorsys
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#ff9f1c", "#2ec4ff", "#7ae582", "#ff70a6", "#e9ff70", "#b388ff")
GOLDEN = 0.618034  # of a circle: hues this far apart stay apart, however many there are
TRUTH_ALPHA = 0.4


@contextmanager
def new_figure(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """An empty figure, to be drawn and saved inside the with block.

    Its own canvas: pyplot would keep figures, and choose a backend for the whole process. Names that users gave are
    never read as formulas.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    gc.collect()  # figures are cycles: earlier ones would stay, some MiB each
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # nnU-Net's own plot sets a global style with huge letters
        matplotlib.rcParams |= {
            "text.parse_math": False,
            "svg.hashsalt": "gmabs",  # the same figure gives the same page
            "font.size": 9,
            "axes.edgecolor": "#9aa5b1",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
        figure = Figure(figsize=(width_inches, height_inches), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def class_colour(value: int) -> str:
    """The colour of a class, bright on dark scans; the same in every picture, whichever other classes are there.

    >>> class_colour(2), class_colour(7)
    ('#2ec4ff', '#48ff40')
    """
    if 1 <= value <= len(COLOURS):
        return COLOURS[value - 1]
    saturation = (0.35, 0.75)[value // len(COLOURS) % 2]
    red, green, blue = colorsys.hsv_to_rgb(value * GOLDEN % 1, saturation, 1.0)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def outline(panel: Axes, mask: np.ndarray, colour: str, width: float = 1.4, style: str = "-") -> None:
    """Draw the border of a region (H, W) bool; there is none around nothing, everything, or a map one voxel thin."""
    if min(mask.shape) > 1 and mask.any() and not mask.all():
        panel.contour(mask.astype(float), levels=[0.5], colors=[colour], linestyles=[style], linewidths=[width])
