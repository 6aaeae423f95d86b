"""A second network beside a trainer's own, with all that belongs to a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nnunet_gmabs.trainers.progress import EpochMeans


class Peer:
    """Network of the plan's architecture, optimiser and schedule as nnU-Net makes them, and a log.

    Args:
        trainer: one of ours, initialised.
        seed: of the initial weights; what else torch draws does not depend on it, nor changes by it.
    """

    def __init__(self, trainer: Any, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.module: nn.Module = trainer.build_network_architecture(
                trainer.plans_manager,
                trainer.configuration_manager,
                trainer.num_input_channels,
                trainer.label_manager.num_segmentation_heads,
                trainer.enable_deep_supervision,
            ).to(trainer.device)
        trainer.suit_device(self.module)
        self.network: Any = torch.compile(self.module) if trainer._do_i_compile() else self.module
        own, trainer.network = trainer.network, self.network
        try:
            self.optimizer, self.lr_scheduler = trainer.configure_optimizers()
        finally:
            trainer.network = own
        self.epoch_means = EpochMeans()

    @contextmanager
    def in_place_of(self, trainer: Any) -> Iterator[None]:
        """Inside, the trainer's network, optimiser and log are the peer's."""
        names = ("network", "optimizer", "epoch_means")
        own = {name: getattr(trainer, name) for name in names}
        try:
            for name in names:
                setattr(trainer, name, getattr(self, name))
            yield
        finally:
            for name, value in own.items():
                setattr(trainer, name, value)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights, which are among the trainer's networks()."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Counterpart of state()."""
        self.optimizer.load_state_dict(state["optimizer"])
