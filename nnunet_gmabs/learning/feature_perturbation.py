"""Perturbed encoder features, one kind for each resolution and step (CMEMS 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["dropout", "noise", "statistics"]


@dataclass(frozen=True)
class FeaturePerturbation:
    """What happens to the features of one resolution, and the numbers drawn for it.

    Attributes:
        kind: dropout and noise multiply the features; statistics mixes their mean and deviation between samples.
        values: factors (B, F, 1, ...) for dropout, (B, F, X, Y[, Z]) for noise; for statistics the own share
            (B, 1, 1, ...).
    """

    kind: Kind
    values: Tensor


def draw_feature_perturbations(
    features: Sequence[Tensor],
    kinds: Sequence[Kind],
    dropout: float,
    noise: float,
    choices: torch.Generator,
    generator: torch.Generator,
) -> list[FeaturePerturbation]:
    """One perturbation for each resolution, its kind drawn anew.

    Args:
        features: give shapes, type and device: (B, F, X, Y[, Z]) from the finest to the coarsest.
        kinds: to draw from, all equally likely.
        dropout: share of channels that is dropped on average. The others are scaled so that the sum of the
            channels' weights stays F; where all would go, all stay (so a single channel is never dropped).
        noise: each value is multiplied by 1 + u, u uniform within plus or minus this.
        choices: generator of the CPU, for the kinds.
        generator: of the features' device, for the values.
    """
    return [_draw(f, kinds[_choose(len(kinds), choices)], dropout, noise, generator) for f in features]


def _choose(number: int, generator: torch.Generator) -> int:
    return int(torch.randint(number, (), generator=generator))


def _draw(feature: Tensor, kind: Kind, dropout: float, noise: float, generator: torch.Generator) -> FeaturePerturbation:
    column = [1] * (feature.ndim - 2)
    shapes = {
        "dropout": (*feature.shape[:2], *column),
        "noise": tuple(feature.shape),
        "statistics": (feature.shape[0], 1, *column),
    }
    # drawn in float32: half precision has too few numbers in [0, 1)
    uniform = torch.rand(shapes[kind], generator=generator, device=feature.device)
    if kind == "dropout":
        stays = uniform >= dropout
        stays = stays | ~stays.any(1, keepdim=True)
        uniform = stays * (feature.shape[1] / stays.sum(1, keepdim=True))
    elif kind == "noise":
        uniform = 1 + (2 * uniform - 1) * noise
    return FeaturePerturbation(kind, uniform.to(feature.dtype))


def apply_feature_perturbation(feature: Tensor, drawn: FeaturePerturbation) -> Tensor:
    """New features in the graph of the given ones, which stay as they are.

    statistics (MixStyle, Zhou et al., ICLR 2021): with m, s mean and deviation of each channel and m', s' those of
    the sample before, f <- (f - m) / s (a s + (1 - a) s') + a m + (1 - a) m'; nothing changes in a batch of one.
    """
    if drawn.kind != "statistics":
        return feature * drawn.values
    axes = tuple(range(2, feature.ndim))
    mean = feature.mean(axes, keepdim=True).detach()
    sd = (feature.float().var(axes, correction=0, keepdim=True) + 1e-6).sqrt().to(feature.dtype).detach()
    mixed_mean, mixed_sd = (drawn.values * x + (1 - drawn.values) * x.roll(1, 0) for x in (mean, sd))
    return (feature - mean) / sd * mixed_sd + mixed_mean
