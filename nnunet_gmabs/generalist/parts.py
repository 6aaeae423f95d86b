"""Connected parts of a class: which are too small to be asked about, and what expert labels say of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

SMALL = 0.1  # of the largest part
IN_PIECES = 0.25  # share of the drawn planes that show a class in pieces; from here on it may have several parts
FEW_PLANES = 6  # of two scans: fewer tell nothing


def without_small_parts(labels: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Labels without connected parts that are smaller than a share of their class's largest part.

    Specks far from a structure would stretch the boxes of its slices, or ask for slices where nothing is.

    Args:
        labels: (X, Y, Z) int, classes 1..K; parts are connected through faces.
        shares: of each class, in [0, 1]; 0 keeps everything, 1 the largest part (of equals all).
    """
    kept = np.zeros_like(labels)
    for label, share in enumerate(shares, 1):
        parts, number = ndimage.label(labels == label)
        sizes = np.bincount(parts.ravel(), minlength=number + 1)
        sizes[0] = 0
        kept[(sizes >= share * sizes.max())[parts] & (parts > 0)] = label
    return kept


def smallest_parts(drawn: Iterable[np.ndarray], ignore_label: int) -> list[float]:
    """For each class 1..ignore_label - 1, which share of its largest part a part must have to be one of its own.

    1 for a class that an expert's planes rarely show in pieces, else 0.1:

    n_k = planes that show class k,  m_k = those with a second part of at least 0.1 times the largest
    share_k = 1 if n_k >= 6 and m_k < n_k / 4, else 0.1

    A curved structure may cross a plane twice, a structure in several parts (both lungs) shows most of them in most
    planes: so a class is taken for one piece only where less than a quarter of its planes show pieces. Ours.

    Args:
        drawn: labels of scans, each (X, Y, Z) int, ignore_label where nothing is drawn. Only planes along an axis that
            are drawn completely count; of a 2D image (an axis of length 1) it is the one plane.
        ignore_label: of the data set.
    """
    shown, in_pieces = np.zeros(ignore_label, int), np.zeros(ignore_label, int)
    for labels in drawn:
        slices = [axis for axis, length in enumerate(labels.shape) if length == 1]  # of a 2D image; its rows are none
        for axis in slices or range(labels.ndim):
            others = tuple(a for a in range(labels.ndim) if a != axis)
            for index in np.flatnonzero((labels != ignore_label).all(axis=others)):
                plane = labels.take(index, axis)
                for label in np.unique(plane[plane > 0]):
                    shown[label] += 1
                    in_pieces[label] += _in_pieces(plane == label)
    one_piece = (shown >= FEW_PLANES) & (in_pieces < IN_PIECES * shown)
    return np.where(one_piece, 1.0, SMALL)[1:].tolist()


def _in_pieces(mask: np.ndarray) -> bool:
    parts, number = ndimage.label(mask)
    sizes = np.sort(np.bincount(parts.ravel())[1:])
    return number > 1 and sizes[-2] >= SMALL * sizes[-1]
