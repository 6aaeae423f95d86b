"""Weights that change while a training goes on: functions of its progress in [0, 1]."""

import math


def sigmoid_rampup(fraction: float) -> float:
    """Weight that rises from exp(-5) = 0.0067 at 0 to 1 at 1, and stays 1.

    r(a) = exp(-5 (1 - a)^2), a = fraction clipped to [0, 1]    (Laine & Aila, ICLR 2017)
    """
    a = min(max(fraction, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - a) ** 2)
