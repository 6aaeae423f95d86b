"""CutMix (Yun et al., ICCV 2019): each sample gets a box of another one, in image and labels alike."""

import torch
from torch import Tensor


def draw_boxes(batch: int, shape: tuple[int, ...], probability: float, generator: torch.Generator) -> Tensor:
    """Where each sample is replaced: one box a sample, a share of it uniform in [0, 1/2], anywhere.

    All sides of a box are the same share of the patch's. At least half of a sample stays its own.

    Args:
        batch: number of samples B.
        shape: (X, Y[, Z]).
        probability: of a sample to get a box at all.
        generator: of the CPU.

    Returns:
        (B, 1, X, Y[, Z]) bool on the CPU.
    """
    inside = torch.zeros(batch, 1, *shape, dtype=torch.bool)
    for sample in inside:
        chance, share, *place = torch.rand(2 + len(shape), generator=generator, dtype=torch.float64).tolist()
        if chance < probability:
            sides = [round(n * (share / 2) ** (1 / len(shape))) for n in shape]
            starts = [int(p * (n - side + 1)) for p, n, side in zip(place, shape, sides, strict=True)]
            sample[(0, *(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))] = True
    return inside


def apply_boxes(values: Tensor, inside: Tensor) -> Tensor:
    """A new tensor: inside the boxes the sample before each, elsewhere its own. A sample that is alone stays as it is.

    (A box of its own other half in place of that, as it was before, does harm where the place in the patch tells
    classes apart: docs/study.md.)

    Args:
        values: (B, channels, X, Y[, Z]): images, labels or masks.
        inside: (B, 1, X, Y[, Z]) bool, on the device of values.
    """
    return torch.where(inside, values.roll(1, 0), values)
