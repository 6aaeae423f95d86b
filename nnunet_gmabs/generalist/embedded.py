"""The generalist that comes with this package: a small network that looks at a crop around the box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_gmabs.files import sha256
from nnunet_gmabs.generalist.crops import Window, box_in_crop, cut, paste, window_around
from nnunet_gmabs.generalist.embedded_network import CROP_SIZE, load_network, network_input
from nnunet_gmabs.generalist.prompts import Prompt

WEIGHTS = Path(__file__).with_name("weights") / "embedded.safetensors"
CROPS_AT_ONCE = 64
OUTSIDE = -20.0
"""Logit of what lies outside of the crop."""


class EmbeddedGeneralist:
    """A network trained on images drawn in code; see docs/generalist.md for what it can do.

    Without an encoder of its own: the embedding is the slice. A prompt's prior is used where there is one.

    Args:
        checkpoint: other weights than those in the package.
        device: torch device.
        specialist_dice: about how good the priors' scans are, in [0, 1], where that is known (pseudo Dice, expert
            planes); may be set at any time. The better the specialist, the less is changed. None: unknown,
            which measured as good or better (docs/generalist.md).

    Raises:
        InputError: weights missing, damaged or of another network.
    """

    name = "embedded"
    has_encoder = False
    wants_neighbours = True

    def __init__(
        self, checkpoint: Path | None = None, device: Any = "cpu", specialist_dice: float | None = None
    ) -> None:
        path = WEIGHTS if checkpoint is None else checkpoint
        self.network = load_network(path).to(device)
        self.device = torch.device(device)
        self.weights_hash = sha256(path)
        self.specialist_dice = specialist_dice

    def encode(self, slice_2d: np.ndarray) -> np.ndarray:
        """The slice itself."""
        return slice_2d

    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The slices themselves."""
        return list(slices)

    def segment(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) bool and qualities (N,) float32 for the prompts of one slice."""
        return self.segment_many([(embedding, prompts)])[0]

    def segment_many(self, items: Sequence[tuple[np.ndarray, Sequence[Prompt]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same for several slices, all prompts in common batches."""
        asked = [(slice_2d, prompt) for slice_2d, prompts in items for prompt in prompts]
        answers = []
        for start in range(0, len(asked), CROPS_AT_ONCE):
            answers += self._answers(asked[start : start + CROPS_AT_ONCE])
        results = []
        for slice_2d, prompts in items:
            own, answers = answers[: len(prompts)], answers[len(prompts) :]
            masks = np.zeros((len(own), *slice_2d.shape[:2]), bool)
            for mask, (logits, window, _) in zip(masks, own, strict=True):
                mask[:] = paste(logits, window, mask.shape, OUTSIDE) > 0
            results.append((masks, np.array([quality for _, _, quality in own], np.float32)))
        return results

    @torch.inference_mode()
    def _answers(self, asked: Sequence[tuple[np.ndarray, Prompt]]) -> list[tuple[np.ndarray, Window, float]]:
        """Logits of the crop, where it lies, and quality for each prompt."""
        windows = [window_around(prompt.box_xyxy) for _, prompt in asked]
        crops = [_crop(slice_2d, prompt, window) for (slice_2d, prompt), window in zip(asked, windows, strict=True)]
        grey, prior, boxes = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        points, labels = _points([prompt for _, prompt in asked], windows)
        flag = torch.tensor([self._prior_flag(prompt) for _, prompt in asked])
        x = network_input(*(part.to(self.device) for part in (grey, prior, flag, boxes, points, labels)))
        logits, quality = self.network(x.contiguous(memory_format=torch.channels_last))
        return list(zip(logits.cpu().numpy(), windows, torch.sigmoid(quality).tolist(), strict=True))

    def _prior_flag(self, prompt: Prompt) -> float:
        if prompt.prior is None:
            return 0.0
        return 1.0 if self.specialist_dice is None else 1.0 + self.specialist_dice


def _crop(slice_2d: np.ndarray, prompt: Prompt, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three grey planes, the prior (0 where there is none), and the box."""
    planes = slice_2d.transpose(2, 0, 1)
    if prompt.prior is not None:
        planes = np.concatenate([planes, prompt.prior[None]], dtype=np.float32)
    crop = cut(planes, window, CROP_SIZE)
    prior = np.zeros_like(crop[0]) if prompt.prior is None else crop[3]
    return crop[:3], prior, box_in_crop(window, np.asarray(prompt.box_xyxy, float), CROP_SIZE)


def _points(prompts: Sequence[Prompt], windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (B, N, 2) in pixels of the crops and labels (B, N), filled up with label -1."""
    most = max(len(prompt.point_labels) for prompt in prompts)
    points = torch.zeros(len(prompts), most, 2)
    labels = torch.full((len(prompts), most), -1)
    for row, (prompt, window) in enumerate(zip(prompts, windows, strict=True)):
        number = len(prompt.point_labels)
        if number:
            points[row, :number] = torch.from_numpy(window.to_crop(prompt.points_xy, CROP_SIZE)).float()
            labels[row, :number] = torch.as_tensor(np.asarray(prompt.point_labels, np.int64))
    return points, labels
