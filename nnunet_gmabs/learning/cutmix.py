"""CutMix (Yun et al., ICCV 2019): each sample gets a box of another one, in image and labels alike.

Also boxes in both directions between labelled and unlabelled samples (Bai et al., *Bidirectional copy-paste*, CVPR
2023).
"""

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


def draw_own_parts(batch: int, shape: tuple[int, ...], side: float, generator: torch.Generator) -> Tensor:
    """Where each sample stays its own, when it is mixed with another: a box, or all but a box, by even chance.

    The box lies anywhere, and its sides are the same share of the patch's.

    Args:
        batch: number of samples B.
        shape: (X, Y[, Z]).
        side: of the box as a share of the patch's, in (0, 1).
        generator: of the CPU.

    Returns:
        (B, 1, X, Y[, Z]) bool on the CPU.
    """
    own = torch.zeros(batch, 1, *shape, dtype=torch.bool)
    sides = [round(n * side) for n in shape]
    for sample in own:
        chance, *place = torch.rand(1 + len(shape), generator=generator, dtype=torch.float64).tolist()
        starts = [int(p * (n - length + 1)) for p, n, length in zip(place, shape, sides, strict=True)]
        sample[(0, *(slice(start, start + length) for start, length in zip(starts, sides, strict=True)))] = True
        if chance < 0.5:
            sample.logical_not_()
    return own


def apply_boxes(values: Tensor, inside: Tensor) -> Tensor:
    """A new tensor: inside the boxes the sample before each, elsewhere its own. A sample that is alone stays as it is.

    (A box of its own other half in place of that, as it was before, does harm where the place in the patch tells
    classes apart: docs/study.md.)

    Args:
        values: (B, channels, X, Y[, Z]): images, labels or masks.
        inside: (B, 1, X, Y[, Z]) bool, on the device of values.
    """
    return torch.where(inside, values.roll(1, 0), values)
