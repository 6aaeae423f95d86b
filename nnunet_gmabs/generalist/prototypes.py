"""Class prototypes: the mean feature of each class, and how much like it every voxel is (GM-ABS 6).

Features (F, ...) and probabilities (C, ...) may have any number of spatial axes, the same in both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ABSENT = -2.0  # stands for the cosine to a class without prototype: below all others


def class_prototypes(features: Tensor, probs: Tensor) -> Tensor:
    """c_k = sum_v 1[y_v = k] p_k(v) F_v / sum_v 1[y_v = k] p_k(v), with y = argmax p.

    Args:
        features: (F, X, Y, Z) float.
        probs: (C, X, Y, Z) in [0, 1].

    Returns:
        (C, F); zeros for a class without voxels.
    """
    own = torch.arange(len(probs), device=probs.device).view(-1, *[1] * (probs.ndim - 1)) == probs.argmax(0)
    sums = PrototypeSums(len(probs))
    sums.add(features, probs * own)
    return sums.prototypes()


def prototype_probs(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """Q = softmax over the classes of scale cos(F_v, c_k); 0 for classes without prototype.

    Args:
        features: (F, X, Y, Z) float.
        prototypes: (C, F); zeros mark a class without prototype.
        scale: steepness. Paper: 20, at which q is 1.0 in float32 for most voxels.

    Returns:
        (C, X, Y, Z) that sum to 1 over the classes; all 0 where no class has a prototype.
    """
    present = has_prototype(prototypes)
    similarity = cosine_similarity(features, prototypes) * scale
    mask = present.view(-1, *[1] * (features.ndim - 1))
    probs = torch.softmax(similarity.masked_fill(~mask, -torch.inf), 0)
    return torch.nan_to_num(probs, nan=0.0)  # no class at all


class PrototypeSums:
    """class_prototypes from parts: windows of a scan, or several scans.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        self.weights = torch.zeros(classes, dtype=torch.float64)
        self.sums: Tensor | None = None

    def add(self, features: Tensor, weights: Tensor) -> None:
        """Take in voxels: features (F, ...), and each class's weight of each voxel (C, ...), 0 where it is not its."""
        flat_features, flat_weights = features.flatten(1), weights.flatten(1)
        new = (flat_weights.to(flat_features) @ flat_features.T).cpu().double()
        self.sums = new if self.sums is None else self.sums + new
        self.weights += flat_weights.sum(1).cpu().double()

    def prototypes(self) -> Tensor:
        """(C, F) float32; zeros for a class without weight."""
        if self.sums is None:
            raise ValueError("no voxel was added; there is no prototype of anything")
        return (self.sums / self.weights.clamp(min=1e-12)[:, None]).float()


def has_prototype(prototypes: Tensor) -> Tensor:
    """(C,) bool: False for the zeros that mark a class without voxels."""
    return prototypes.abs().sum(1) > 0


def cosine_similarity(features: Tensor, prototypes: Tensor) -> Tensor:
    """(C, ...) cos(F_v, c_k) in [-1, 1] of features (F, ...); 0 where one of the two is zero."""
    unit = F.normalize(features, dim=0)
    return torch.einsum("cf,f...->c...", F.normalize(prototypes, dim=1).to(unit), unit)


def cosine_margin(similarity: Tensor, present: Tensor) -> Tensor:
    """Cosine to each class minus the highest cosine to another one: what points are ranked by.

    prototype_probs saturates at 1.0, this does not.

    Args:
        similarity: (C, ...) cosines, C >= 2.
        present: (C,) bool, classes with a prototype; the others count as -2.

    Returns:
        (C, ...); -infinity never appears: where nothing else is present, the margin is to -2.
    """
    cosine = _only_present(similarity, present)
    two, order = cosine.topk(2, 0)
    best_other = torch.where(
        torch.arange(len(cosine), device=cosine.device).view(-1, *[1] * (cosine.ndim - 1)) == order[:1],
        two[1:],
        two[:1],
    )
    return cosine - best_other


def nearest_prototype(similarity: Tensor, present: Tensor) -> Tensor:
    """(...) int64: the class whose prototype is most alike, argmax q; 0 where none is present."""
    return _only_present(similarity, present).argmax(0)


def _only_present(similarity: Tensor, present: Tensor) -> Tensor:
    return similarity.masked_fill(~present.view(-1, *[1] * (similarity.ndim - 1)), ABSENT)
