"""How a plane is turned and mirrored for the screen; the only place that maps pictures to planes.

Pictures are (rows, columns), row 0 on top. Patients are shown as radiologists expect them: axial and coronal with
the patient's right on the left of the picture, sagittal with anterior on the left; anterior or superior on top.
World axes are those of ITK and DICOM: x grows to the patient's left, y to posterior, z to superior.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nnunet_gmabs.annotation.planes import Plane

NAMES = ("sagittal", "coronal", "axial")  # planes across world x, y, z
LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # where world x, y, z are lowest and highest
OPPOSITE = dict([*LETTERS, *(pair[::-1] for pair in LETTERS)])
TO_THE_RIGHT = {0: 1, 1: 1}  # sign with which a world axis runs from left to right on the screen
DOWN = {1: 1, 2: -1}  # and from top to bottom
VISIBLE = 0.3  # a direction's component below this gets no letter: 17 degrees are still called straight


@dataclass(frozen=True)
class View:
    """The planes across one array axis, on the screen.

    Attributes:
        axis: the array axis that the planes are across.
        row_axis: array axis that runs along the screen's rows, from top to bottom.
        column_axis: array axis that runs from left to right.
        flip_rows: the first index of row_axis is at the bottom.
        flip_columns: the first index of column_axis is on the right.
        name: axial, coronal or sagittal; what comes nearest for an oblique scan.
        oblique: more than 17 degrees away from that name.
        edges: letters of the patient's sides at the left, right, top and bottom edge.
        forward: letters of the side to which the index grows.
    """

    axis: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool
    name: str
    oblique: bool
    edges: tuple[str, str, str, str]
    forward: str

    def to_screen(self, plane: np.ndarray) -> np.ndarray:
        """The picture of a plane, given with its two axes in the array's order."""
        picture = plane if self.row_axis < self.column_axis else plane.T
        return np.ascontiguousarray(picture[self._flips])

    def from_screen(self, picture: np.ndarray) -> np.ndarray:
        """The plane of a picture: the inverse of to_screen."""
        plane = picture[self._flips]
        return np.ascontiguousarray(plane if self.row_axis < self.column_axis else plane.T)

    def line_of(self, other: Plane, shape: tuple[int, ...]) -> dict[str, int | str] | None:
        """Where a plane across another axis cuts the picture: a whole row or a whole column of pixels.

        Returns:
            {"along": "row" or "column", "at": its number}; None for a parallel plane.
        """
        axis, index = other
        if axis == self.axis:
            return None
        along, flip = ("row", self.flip_rows) if axis == self.row_axis else ("column", self.flip_columns)
        return {"along": along, "at": shape[axis] - 1 - index if flip else index}

    @property
    def _flips(self) -> tuple[slice, slice]:
        return slice(None, None, -1 if self.flip_rows else 1), slice(None, None, -1 if self.flip_columns else 1)


def view_across(axis: int, direction: np.ndarray) -> View:
    """How planes across an array axis are shown.

    Args:
        axis: 0, 1 or 2.
        direction: (3, 3); column a is the unit vector, in world coordinates, along which the index of array axis a
            grows. Rotations by any angle are allowed.
    """
    world = nearest_world_axes(direction)
    inside = [a for a in range(3) if a != axis]
    column_axis = min(inside, key=lambda a: world[a])  # x before y before z
    row_axis = next(a for a in inside if a != column_axis)
    right = _sign(direction, column_axis, world) * TO_THE_RIGHT[world[column_axis]]
    down = _sign(direction, row_axis, world) * DOWN[world[row_axis]]
    right_letters = letters_towards(direction[:, column_axis] * right)
    down_letters = letters_towards(direction[:, row_axis] * down)
    return View(
        axis=axis,
        row_axis=row_axis,
        column_axis=column_axis,
        flip_rows=down < 0,
        flip_columns=right < 0,
        name=NAMES[world[axis]],
        oblique=bool(np.abs(direction[world[axis], axis]) < np.sqrt(1 - VISIBLE**2)),
        edges=(_opposite(right_letters), right_letters, _opposite(down_letters), down_letters),
        forward=letters_towards(direction[:, axis]),
    )


def nearest_world_axes(direction: np.ndarray) -> tuple[int, ...]:
    """For each array axis the world axis it follows best, each world axis once."""
    size = np.abs(direction)
    return max(itertools.permutations(range(3)), key=lambda world: sum(size[w, a] for a, w in enumerate(world)))


def letters_towards(vector: np.ndarray) -> str:
    """Sides of the patient that a unit vector points to, the strongest first, such as "L" or "PS"."""
    order = sorted(range(3), key=lambda w: -abs(vector[w]))
    return "".join(LETTERS[w][int(vector[w] > 0)] for w in order if abs(vector[w]) > VISIBLE)


def _sign(direction: np.ndarray, axis: int, world: tuple[int, ...]) -> int:
    return 1 if direction[world[axis], axis] > 0 else -1


def _opposite(letters: str) -> str:
    return "".join(OPPOSITE[letter] for letter in letters)
