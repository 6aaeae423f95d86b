"""What the network in training says about one scan: probabilities, and labels by class prototypes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_gmabs.generalist.prototypes import (
    PrototypeSums,
    cosine_margin,
    cosine_similarity,
    has_prototype,
    nearest_prototype,
)
from nnunet_gmabs.inference import SlidingWindows


@dataclass(frozen=True)
class Specialist:
    """What the network says about one scan, on the training grid.

    Attributes:
        probs: (C, X, Y, Z) float32.
        labels: (X, Y, Z) int, the class whose prototype a voxel's features are most like.
        margin: (C, X, Y, Z) float32, cosine to the class minus the highest cosine to another one.
    """

    probs: np.ndarray
    labels: np.ndarray
    margin: np.ndarray


def specialist_of(windows: SlidingWindows, prototypes: Tensor | None = None) -> Specialist:
    """Probabilities and prototype labels of one scan, in passes over its windows.

    The released program compares features of one window at a time with prototypes of that window. Ours: prototypes of
    the whole scan, and cosines averaged over the windows that cover a voxel.

    Args:
        windows: of the scan.
        prototypes: (C, F) from elsewhere; None: the scan's own, of the network's own labels (GM-ABS 6).
    """
    probs = windows.probs(keep_features=True)
    if prototypes is None:
        sums = PrototypeSums(len(probs))
        add_to_sums(sums, windows, probs, probs.argmax(0))
        prototypes = sums.prototypes()
    similarity = windows.averaged(len(prototypes), lambda features: cosine_similarity(features, prototypes))
    present = has_prototype(prototypes)
    margin = cosine_margin(similarity, present)
    return Specialist(probs.numpy(), nearest_prototype(similarity, present).numpy(), margin.numpy())


def add_to_sums(sums: PrototypeSums, windows: SlidingWindows, probs: Tensor, labels: Tensor) -> None:
    """Add one scan to c_k = sum_v 1[y_v = k] p_k(v) F_v / sum_v 1[y_v = k] p_k(v).

    Args:
        sums: gets the features of every window, each with its share in the voxel.
        windows: of the scan.
        probs: (C, X, Y, Z), weights.
        labels: (X, Y, Z) int; other values than 0..C-1 belong to no class.
    """
    weights = windows.padded(torch.stack([probs[k] * (labels == k) for k in range(len(probs))]))
    for window, share, features in windows.each_features():
        sums.add(features, weights[(slice(None), *window)] * share)
