"""Weights that change while a training goes on: functions of its progress in [0, 1]."""

import math


def sigmoid_rampup(fraction: float) -> float:
    """Weight that rises from exp(-5) = 0.0067 at 0 to 1 at 1, and stays 1.

    r(a) = exp(-5 (1 - a)^2), a = fraction clipped to [0, 1]    (Laine & Aila, ICLR 2017)
    """
    a = min(max(fraction, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - a) ** 2)


def ramped(progress: float, weight: float, start: float, end: float) -> float:
    """A term's weight: 0 before the start, then w r((progress - start) / (end - start)), w from the end on."""
    fraction = (progress - start) / max(end - start, 1e-6)
    return weight * sigmoid_rampup(fraction) if fraction >= 0 else 0.0


def faded(progress: float, value: float, end: float) -> float:
    """A value that falls linearly from the start on and is 0 from `end` on: v max(0, 1 - progress / end)."""
    return value * max(0.0, 1 - progress / end) if end > 0 else 0.0


def confidence_threshold(progress: float, start: float, end: float) -> float:
    """tau, linear in the progress of the training in [0, 1], from start to end; constant when both are equal."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def uncertainty_threshold(progress: float) -> float:
    """Normalised entropy above which a voxel is uncertain: 0.35 + 0.25 r(progress), from 0.352 to 0.6 (paper)."""
    return 0.35 + 0.25 * sigmoid_rampup(progress)


def rounds_due(progress: float, first: float, every: float, until: float) -> int:
    """How many rounds have fallen due so far: at first, first + every, ..., none after until.

    n(p) = 0 for p < first, else floor((min(p, until) - first) / every) + 1; a tiny addition, because 0.3 is three
    times 0.1, whatever binary fractions say.
    """
    p = min(progress, until) + 1e-9
    return 0 if p < first or first > until + 1e-9 else int((p - first) / every) + 1


def noise_tolerant_weight(progress: float, weight: float = 0.5, final_share: float = 0.1) -> float:
    """Weight of what pseudo labels say: w (1 - (1 - s) r(progress)), from nearly w down to w s (GM-ABS 7)."""
    return weight * (1.0 - (1.0 - final_share) * sigmoid_rampup(progress))
