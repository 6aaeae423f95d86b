"""What the network in training says about one scan: probabilities, and labels by class prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_gmabs.generalist import views
from nnunet_gmabs.generalist.parts import without_small_parts
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
    """What the network says about one scan, on the training grid: two arrays of classes x voxels, no more.

    Attributes:
        probs: (C, X, Y, Z) float32.
        similarity: (C, X, Y, Z) float32, cosine of a voxel's features to each class's prototype.
        present: (C,) bool, classes with a prototype.
        labels: (X, Y, Z) int16, the regions that the generalist is prompted with.
    """

    probs: np.ndarray
    similarity: np.ndarray
    present: np.ndarray
    labels: np.ndarray

    def margin(self, axis: int, index: int) -> np.ndarray:
        """(C, H, W) of one slice: cosine to the class minus the highest cosine to another one."""
        similarity = torch.from_numpy(views.take_slice(self.similarity, axis, index))
        return cosine_margin(similarity, torch.from_numpy(self.present)).numpy()


def specialist_of(
    windows: SlidingWindows,
    prototypes: Tensor | None = None,
    regions: str = "prototypes",
    min_parts: Sequence[float] | None = None,
) -> Specialist:
    """Probabilities, prototypes and regions of one scan, in passes over its windows.

    The released program compares features of one window at a time with prototypes of that window. Ours: prototypes of
    the whole scan, and cosines averaged over the windows that cover a voxel.

    Args:
        windows: of the scan.
        prototypes: (C, F) from elsewhere; None: the scan's own, of the network's own labels (GM-ABS 6).
        regions: "prototypes": each voxel belongs to the class with the highest cosine (paper); "probabilities": to the
            most probable one.
        min_parts: shares of each class, see without_small_parts; None: all parts are kept.
    """
    probs = windows.probs(keep_features=True)
    own = probs.argmax(0)
    if prototypes is None:
        sums = PrototypeSums(len(probs))
        add_to_sums(sums, windows, probs, own)
        prototypes = sums.prototypes()
    similarity = windows.averaged(len(prototypes), lambda features: cosine_similarity(features, prototypes))
    present = has_prototype(prototypes)
    if regions == "prototypes":
        labels = np.stack([nearest_prototype(p, present).numpy().astype(np.int16) for p in similarity.unbind(1)])
    else:
        labels = own.numpy().astype(np.int16)
    if min_parts is not None:
        labels = without_small_parts(labels, min_parts)
    return Specialist(probs.numpy(), similarity.numpy(), present.numpy(), labels)


def add_to_sums(sums: PrototypeSums, windows: SlidingWindows, probs: Tensor | None, labels: Tensor) -> None:
    """Add one scan to c_k = sum_v 1[y_v = k] p_k(v) F_v / sum_v 1[y_v = k] p_k(v).

    Args:
        sums: gets the features of every window, each with its share in the voxel.
        windows: of the scan.
        probs: (C, X, Y, Z), weights; None: all are 1.
        labels: (X, Y, Z) int; other values than 0..C-1 belong to no class.
    """
    classes = torch.arange(len(sums.weights))
    for window, share, features in windows.each_features():
        inside, place = windows.inside(window)
        own = labels[place] == classes.view(-1, *[1] * features[0][inside].ndim)
        weights = own * share[inside]
        sums.add(features[(slice(None), *inside)], weights if probs is None else weights * probs[(slice(None), *place)])
