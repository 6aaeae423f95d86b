"""Along which axes anatomy has a direction: mirrored there, one class would look like another one's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

SEPARATION = 1.0  # in standard deviations of a class's own voxels


def directed_axes(scans: Iterable[Mapping[int, np.ndarray]]) -> list[int]:
    """Axes along which two classes lie the same way round in every scan that shows both.

    d_s = (mean x_i - mean x_j) / sqrt((var x_i + var x_j) / 2)  over the labelled voxels of classes i, j in scan s

    An axis is directed if, for some pair of foreground classes, d_s has the same sign in all scans s, and its mean
    over them is at least 1 in size. The head and the tail of the hippocampus along the front-to-back axis; the left
    and the right kidney. What mirrors there must tell classes apart by their shape alone, and makes scans that nobody
    will ever see. Ours.

    Args:
        scans: for each labelled scan the voxels of each class, (n, axes) of any number type; other keys than
            foreground classes must be left out.

    Returns:
        Axes in ascending order; none where no scan shows two classes.
    """
    differences: dict[tuple[int, int], list[np.ndarray]] = {}
    for places in scans:
        shown = {label: np.asarray(voxels, float) for label, voxels in places.items() if len(voxels)}
        for i, j in combinations(sorted(shown), 2):
            spread = np.sqrt((shown[i].var(0) + shown[j].var(0)) / 2)
            shift = shown[i].mean(0) - shown[j].mean(0)
            differences.setdefault((i, j), []).append(shift / np.maximum(spread, 0.5))  # a plane is one voxel thick
    directed: set[int] = set()
    for pair in differences.values():
        d = np.stack(pair)
        same = (d > 0).all(0) | (d < 0).all(0)
        directed |= set(np.flatnonzero(same & (np.abs(d.mean(0)) >= SEPARATION)).tolist())
    return sorted(directed)
