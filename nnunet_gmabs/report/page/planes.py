"""Pictures of planes as a radiologist looks at them, with contours of the expert, the specialist and the generalist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nnunet_gmabs.annotation.painter.scans import UNKNOWN_DIRECTION, direction_of
from nnunet_gmabs.annotation.painter.views import View, view_across
from nnunet_gmabs.annotation.planes import Plane, drawn_planes, plane_index, whole_plane
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.contours import telling_index
from nnunet_gmabs.report.drawing import TRUTH_ALPHA, class_colour, new_figure, outline
from nnunet_gmabs.report.page.images import as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 2.4
PLANES_IN_A_ROW = 3
LINES = {"specialist": "-", "generalist": ":", "truth": "-"}


@dataclass(frozen=True)
class Look:
    """One scan, and who says what about it; label arrays are (X, Y, Z) on the scan's own grid.

    Attributes:
        identifier: the scan.
        image: (X, Y, Z) grey values.
        spacing_mm: of the three axes.
        direction: (3, 3), see view_across; None where it is unknown.
        expert: labels, ignore_label where nothing is drawn; None where there is no label file.
        ignore_label: of the data set; None where it has none.
        lines: "specialist", "generalist" or "truth" -> labels.
    """

    identifier: str
    image: np.ndarray
    spacing_mm: Sequence[float]
    direction: np.ndarray | None
    expert: np.ndarray | None
    ignore_label: int | None
    lines: Mapping[str, np.ndarray] = field(default_factory=dict)

    def view(self, axis: int) -> View:
        """How planes across an axis are shown; as the array lies where the direction is unknown."""
        return view_across(axis, UNKNOWN_DIRECTION if self.direction is None else self.direction)

    def name(self, plane: Plane) -> str:
        """Where a plane is, in words."""
        named = "" if self.direction is None else f"{self.view(plane[0]).name}, "
        return f"{named}axis {plane[0]}, index {plane[1]}"

    def drawn(self) -> list[Plane]:
        """Planes that the expert drew completely; where there is no ignore label nothing counts as drawn."""
        return [] if self.expert is None or self.ignore_label is None else drawn_planes(self.expert, self.ignore_label)


def look_at(raw: RawFolder, identifier: str, expert: np.ndarray | None, lines: Mapping[str, np.ndarray]) -> Look:
    """A scan with contours.

    Raises:
        InputError: if it cannot be read, or labels have another shape.
    """
    image, properties = raw.read_image(identifier)
    shape = image.shape[1:]
    for name, labels in {"expert": expert, **lines}.items():
        if labels is not None and labels.shape != shape:
            raise InputError(f"{identifier}: labels ({name}) have shape {labels.shape}, but the image has {shape}")
    spacing = [float(s) for s in properties["spacing"]]
    return Look(identifier, image[0], spacing, direction_of(properties), expert, raw.ignore_label, dict(lines))


def chosen_planes(look: Look, labels: np.ndarray | None, among: Sequence[Plane] = ()) -> list[Plane]:
    """At most one plane an axis: of those given the one that shows most foreground, else the most telling of all.

    An image of one slice has one plane.
    """
    classes = [] if labels is None else [int(v) for v in np.unique(labels) if v > 0 and v != look.ignore_label]
    if (whole := whole_plane(look.image.shape)) is not None:
        return [whole]
    if among:
        shown = [(int(np.isin(labels[plane_index(p)], classes).sum()) if labels is not None else 0, p) for p in among]
        best = {axis: max((s for s in shown if s[1][0] == axis), default=None) for axis in range(3)}
        return [found[1] for found in best.values() if found is not None]
    if labels is None or not classes:
        return [(axis, n // 2) for axis, n in enumerate(look.image.shape)]
    return [(axis, telling_index(labels, classes, axis)) for axis in range(3)]


def draw_planes(look: Look, planes: Sequence[Plane], classes: Mapping[int, str]) -> str:
    """A data address: for each plane the bare picture and the picture with contours, beside each other.

    Args:
        look: the scan.
        planes: at least one, at most PLANES_IN_A_ROW.
        classes: value -> name of those that are shown.
    """
    planes = list(planes)[:PLANES_IN_A_ROW]
    with new_figure(2 * PANEL_INCHES * len(planes), PANEL_INCHES + 0.35) as figure:
        panels = figure.subplots(1, 2 * len(planes), squeeze=False)[0]
        low, high = np.percentile(look.image, [0.5, 99.5])
        for bare, marked, plane in zip(panels[::2], panels[1::2], planes, strict=True):
            for panel in (bare, marked):
                _show_image(panel, look, plane, low, high)
            bare.set_title(look.name(plane), loc="left", fontsize=11)
            _show_expert(marked, look, plane, list(classes))
            for who, labels in look.lines.items():
                _show_lines(marked, look, plane, labels, who, list(classes))
        return as_png(figure)


def _show_image(panel: Axes, look: Look, plane: Plane, low: float, high: float) -> None:
    view = look.view(plane[0])
    picture = view.to_screen(look.image[plane_index(plane)])
    aspect = look.spacing_mm[view.row_axis] / look.spacing_mm[view.column_axis]
    panel.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    panel.set_axis_off()
    if look.direction is None:
        return
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"),
              (0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"))  # fmt: skip
    for letter, (x, y, across, along) in zip(view.edges, places, strict=True):
        panel.text(x, y, letter, transform=panel.transAxes, ha=across, va=along, color="#ffe066", fontsize=10)


def _show_expert(panel: Axes, look: Look, plane: Plane, classes: Sequence[int]) -> None:
    """Filled areas with a white outline; also where only lines of the plane are drawn."""
    from matplotlib.colors import to_rgba

    if look.expert is None:
        return
    labels = look.view(plane[0]).to_screen(look.expert[plane_index(plane)])
    colours = np.zeros((*labels.shape, 4))
    for value in classes:
        colours[labels == value] = to_rgba(class_colour(value), TRUTH_ALPHA)
        outline(panel, labels == value, "white", 0.8)
    extent = panel.images[0].get_extent()
    panel.imshow(colours, aspect=panel.get_aspect(), interpolation="nearest", extent=extent)


def _show_lines(panel: Axes, look: Look, plane: Plane, labels: np.ndarray, who: str, classes: Sequence[int]) -> None:
    picture = look.view(plane[0]).to_screen(labels[plane_index(plane)])
    thin = who == "truth"
    for value in classes:
        colour, width = ("white", 0.9) if thin else (class_colour(value), 1.7)
        outline(panel, picture == value, colour, width, LINES[who])
