"""nnU-Net's pseudo Dice of each of several networks, and what it says in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nnunetv2.utilities.collate_outputs import collate_outputs

HARDLY = 0.2  # ours: a class below this is told


def hardly_found(labels: Sequence[Any], dice: Sequence[float]) -> list[str]:
    """What to tell of classes, or regions, that a training has not learned: a short one may miss one altogether.

    Args:
        labels: of the classes.
        dice: pseudo Dice of each in the last epoch; NaN says nothing.
    """
    cure = "in the last epoch: hardly found; train longer, or draw more of it"
    found = zip(labels, dice, strict=True)
    return [f"WARNING: class {label} has a pseudo Dice of {v:.2f} {cure}" for label, v in found if v < HARDLY]


def with_own_target(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with a copy of its target: nnU-Net's validation step writes into it."""
    target = batch["target"]
    return {**batch, "target": [t.clone() for t in target] if isinstance(target, list) else target.clone()}


def mean_pseudo_dice(outputs: list[dict], summed: Callable[[dict], dict] = lambda sums: sums) -> float:
    """Mean over classes of nnU-Net's pseudo Dice of an epoch; NaN when no patch shows or predicts any class.

    Args:
        outputs: of nnU-Net's validation steps; counts of voxels by class in tp_hard, fp_hard and fn_hard.
        summed: gives the sums over several processes.
    """
    sums = summed({name: np.sum(v, 0) for name, v in collate_outputs(outputs).items() if name.endswith("_hard")})
    with np.errstate(invalid="ignore"):
        dice = 2 * sums["tp_hard"] / (2 * sums["tp_hard"] + sums["fp_hard"] + sums["fn_hard"])
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else math.nan
