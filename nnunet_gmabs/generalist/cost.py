"""How long the first round takes a generalist with an encoder, measured on a few slices before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.embed_ahead import duration
from nnunet_gmabs.generalist.relabel import Relabeller
from nnunet_gmabs.generalist.views import view_axes


@dataclass(frozen=True)
class Cost:
    """Of encoding.

    Attributes:
        slices: of all views of one process's scans; those without a prompt will not be encoded.
        seconds_each: median of the slices that were tried; 0 where these were in the cache.
        kept: whether later rounds find what the first one has encoded.
    """

    slices: int
    seconds_each: float
    kept: bool

    @property
    def hours(self) -> float:
        """At most."""
        return self.slices * self.seconds_each / 3600


def cost_of_first_round(
    relabeller: Relabeller, shape: Callable[[str], Sequence[int]], processes: int = 1
) -> Cost | None:
    """Encode (and keep) the middle slice of each view of one scan; None for a generalist without an encoder.

    Args:
        relabeller: with its scans.
        shape: identifier -> (X, Y, Z), without reading the voxels.
        processes: that share the scans.
    """
    generalist, scans = relabeller.generalist, relabeller.scans
    if generalist is None or not generalist.has_encoder:
        return None
    identifiers = [*scans.labelled, *scans.unlabelled]
    axes = view_axes(scans.spacing_mm, relabeller.settings.views)
    images, seconds = relabeller.images(identifiers[0]), []
    for axis in axes:
        start = time.monotonic()
        _, encoded = relabeller.encode(images)(axis, [images.bytes.shape[axis] // 2])
        if encoded:
            seconds.append(time.monotonic() - start)
    slices = sum(shape(identifier)[axis] for identifier in identifiers for axis in axes)
    seconds_each = float(np.median(seconds)) if seconds else 0.0
    return Cost(math.ceil(slices / processes), seconds_each, relabeller.cache is not None)


def tell(cost: Cost | None, on_cpu: bool, accept_hours: float, say: Callable[[str], object]) -> None:
    """Say what the first round will cost.

    Raises:
        InputError: more than accept_hours on a CPU.
    """
    if cost is None or not cost.seconds_each:
        return
    told = (
        f"the first round of relabelling encodes up to {cost.slices} slices, {cost.seconds_each:.2g} s each: at most "
        f"{duration(3600 * cost.hours)}"
    )
    if on_cpu and cost.hours > accept_hours:
        raise InputError(
            f"{told} on this CPU. Use a GPU, the generalist `embedded`, or fewer scans (relabel.max_unlabelled); or "
            f"set generalist.accept_hours to {cost.hours + 0.05:.1f} (gmabs relabel: --yes) and wait"
        )
    say(told + ("; later rounds read what it has encoded" if cost.kept else ", and so does each later one"))
