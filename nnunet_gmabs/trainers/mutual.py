"""nnUNetTrainerCMEMS: two networks learn from an exemplar, from synthetic samples, and from each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.presets import CMEMS
from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
from nnunet_gmabs.trainers.mutual_teaching import MutualTeaching
from nnunet_gmabs.trainers.synthetic_samples import SyntheticSamples

SMOOTHING = 0.9  # of pseudo Dice over epochs, nnU-Net's own


class nnUNetTrainerCMEMS(MutualTeaching, SyntheticSamples, nnUNetTrainerSparse):
    """L = L_supervised + lambda r(progress) (L_image + L_feature), for two networks (En & Guo, AISTATS 2024).

    The labelled samples of a batch are of labelled scans and synthetic ones in equal shares, all others are unlabelled.
    In the settings and checkpoints network 1 is the student, network 2 the peer.
    """

    config: GMABSConfig = CMEMS
    inference_networks = ("student", "peer", "better")

    def initialize(self) -> None:
        """Build both networks."""
        super().initialize()
        self.smoothed_dice = {"student": math.nan, "peer": math.nan}

    @property
    def inference_name(self) -> str:
        """Student or peer: by setting, or the better one so far; the student while nothing is known."""
        if self.config.inference_network != "better":
            return self.config.inference_network
        return "peer" if self.smoothed_dice["peer"] > self.smoothed_dice["student"] else "student"

    @property
    def validated_networks(self) -> dict[str, nn.Module]:
        """Student and peer."""
        return {**super().validated_networks, "peer": self.peer.network}

    def note_pseudo_dice(self, pseudo_dice: dict[str, float]) -> None:
        """Also settle which network is better."""
        super().note_pseudo_dice(pseudo_dice)
        self.smoothed_dice = {n: smoothed(self.smoothed_dice[n], v) for n, v in pseudo_dice.items()}

    # ---- the objective

    def own_samples(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Labelled samples only: nothing else is supervised."""
        chosen = batch["labelled"]

        def select(value: Any) -> Any:
            if isinstance(value, list):
                return [select(v) for v in value]
            return value[chosen] if isinstance(value, Tensor) else value

        return {name: select(value) for name, value in batch.items()}

    def loss_parts(self, batch: dict[str, Any]) -> list[Callable[[], dict[str, Tensor]]]:
        """Supervised, image and feature terms; a batch of one sample may have no labelled one."""
        parts = super().loss_parts(batch)
        return parts if len(batch["data"]) else [lambda: {"supervised": self._nothing_drawn(batch)}, *parts[1:]]

    def terms_without_sample(self, batch: dict[str, Any]) -> set[str]:
        """Also the supervised term, where no sample is labelled."""
        labelled = self.in_any_process(len(batch["data"]))
        return super().terms_without_sample(batch) | (set() if labelled else {"supervised"})

    def _nothing_drawn(self, batch: dict[str, Any]) -> Tensor:
        """The supervised term where this rank has no labelled sample: that of the other ranks, if any has one."""
        classes, target = self.label_manager.num_segmentation_heads, batch["target"]
        scales = target if isinstance(target, list) else [target]
        logits = [torch.zeros(0, classes, *t.shape[2:], device=self.device) for t in scales]
        return self._nothing() + self.loss(logits if isinstance(target, list) else logits[0], target)

    # ---- end, checkpoints

    def on_train_end(self) -> None:
        """Say which network checkpoint_final.pth predicts with."""
        self.print_to_log_file(
            f"network for prediction: {self.inference_name} (smoothed pseudo Dice {self.smoothed_dice})"
        )
        super().on_train_end()

    def state(self) -> dict[str, Any]:
        """Also what the choice of the inference network stands on."""
        return {**super().state(), "smoothed_dice": self.smoothed_dice}

    def load_state(self, state: dict[str, Any]) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        self.smoothed_dice = dict(state["smoothed_dice"])


def smoothed(before: float, value: float) -> float:
    """0.9 before + 0.1 value; the one that is a number when the other is not."""
    if math.isnan(value) or math.isnan(before):
        return before if math.isnan(value) else value
    return SMOOTHING * before + (1 - SMOOTHING) * value
