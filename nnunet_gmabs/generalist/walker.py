"""A generalist without weights: the random walker (Grady, PAMI 2006) between seeds that the prompt gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from nnunet_gmabs.generalist.crops import window_around
from nnunet_gmabs.generalist.prompts import Prompt

BETA = 130.0
"""How strongly a step in grey value stops the walker; scikit-image's default."""
CORE = 0.4
"""Seeds inside: the ellipse of the box, shrunk to this share of its axes."""
SURE_INSIDE, SURE_OUTSIDE = 0.95, 0.05
"""With a prior: seeds are where the specialist is this sure."""


class WalkerGeneralist:
    """The reference that every trained generalist should beat.

    Seeds inside: the middle of the box's ellipse and the positive points; outside: what lies outside of the box and
    the negative points. A prior, where there is one, takes the ellipse's place.
    """

    name = "walker"
    weights_hash = f"random walker, beta {BETA:g}, core {CORE:g}, sure {SURE_INSIDE:g} and {SURE_OUTSIDE:g}"
    has_encoder = False
    wants_neighbours = False

    def encode(self, slice_2d: np.ndarray) -> np.ndarray:
        """The slice itself."""
        return slice_2d

    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The slices themselves."""
        return list(slices)

    def segment(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) bool; quality (N,) is how sure the walker is on the average within its mask."""
        masks = np.zeros((len(prompts), *embedding.shape[:2]), bool)
        qualities = np.zeros(len(prompts), np.float32)
        for row, prompt in enumerate(prompts):
            around = _around(prompt, masks.shape[1:])
            inside = _probability(embedding[around][..., 1], _seeds(prompt, masks.shape[1:])[around])
            masks[row][around] = inside > 0.5
            qualities[row] = inside[inside > 0.5].mean() if (inside > 0.5).any() else 0
        return masks, qualities

    def segment_many(self, items: Sequence[tuple[np.ndarray, Sequence[Prompt]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same for several slices."""
        return [self.segment(embedding, prompts) for embedding, prompts in items]


def _around(prompt: Prompt, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of the slice that is looked at: the embedded generalist's crop."""
    window = window_around(prompt.box_xyxy)
    rows, columns = (
        slice(max(0, int(np.floor(c - window.side / 2))), max(1, min(n, int(np.ceil(c + window.side / 2)) + 1)))
        for c, n in ((window.centre_y, shape[0]), (window.centre_x, shape[1]))
    )
    return rows, columns


def _seeds(prompt: Prompt, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) int: 1 inside, 2 outside, 0 where the walker decides."""
    x0, y0, x1, y1 = np.asarray(prompt.box_xyxy, float)
    y, x = np.ogrid[: shape[0], : shape[1]]
    seeds = np.zeros(shape, np.int32)
    if prompt.prior is None:
        across, down = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
        seeds[across**2 + down**2 <= CORE**2] = 1
    else:
        seeds[prompt.prior >= SURE_INSIDE] = 1
        seeds[prompt.prior <= SURE_OUTSIDE] = 2
    seeds[~((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))] = 2
    for (px, py), label in zip(np.rint(prompt.points_xy).astype(int), prompt.point_labels, strict=True):
        if 0 <= py < shape[0] and 0 <= px < shape[1]:
            seeds[py, px] = 1 if label == 1 else 2
    return seeds


def _probability(grey: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(h, w) float: the probability of reaching a seed inside first."""
    from skimage.segmentation import random_walker

    if not (seeds == 1).any() or not (seeds == 2).any() or not (seeds == 0).any():
        return (seeds == 1).astype(np.float32)
    scaled = grey.astype(np.float64) / 255
    scaled = (scaled - scaled.mean()) / max(float(scaled.std()), 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no multigrid solver, pixels that no seed reaches: both are harmless
        probs = random_walker(scaled, seeds, beta=BETA, mode="cg_j", return_full_prob=True)
    return np.nan_to_num(probs[0]).astype(np.float32)
