"""nnU-Net's trainer in several processes, one a GPU or one a share of the CPU's cores."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.batchnorm import _BatchNorm

from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.trainers.random_state import seed_everything
from nnunet_gmabs.trainers.ranks import Ranks

PER_RANK = ("random", "batches_drawn", "perturbations", "mixing", "mutual_generators")  # of a checkpoint's state


def unwrap(network: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper."""
    return network._orig_mod if isinstance(network, OptimizedModule) else network


class DistributedTrainer(nnUNetTrainer):
    """Data-parallel training without a wrapper around the network.

    Every rank has its part of each batch, and all networks. Losses are those of the whole batch (Ranks.total), and
    gradients are summed before each optimiser step (Ranks.sum_gradients), once a step, however many forward and
    backward passes it has, through whole networks or their halves. Then all ranks make the same step, of the student,
    of the peer, and of the teacher that follows; at each epoch's end their weights are compared.

    In nnU-Net's words local_rank is the rank over all machines: it decides who writes and which scans a rank validates.
    The device is the one that the launcher has chosen, which stock nnU-Net takes from that rank, too.
    """

    config: GMABSConfig

    def __init__(self, *args: Any, device: torch.device) -> None:
        self.ranks = Ranks()
        if not self.ranks.writes:
            os.environ["nnUNet_wandb_enabled"] = "0"  # nnU-Net would start a run of each process
        super().__init__(*args, device=device)
        if self.is_ddp:  # nnU-Net has taken cuda:<rank over all machines>, and a scaler
            cuda = device.type == "cuda"
            self.device = torch.device("cuda", torch.cuda.current_device()) if cuda else device
            self.grad_scaler = self.grad_scaler if cuda else None

    @property
    def entropy(self) -> tuple[int, int]:
        """What random numbers follow from."""
        raise NotImplementedError

    def networks(self) -> dict[str, nn.Module]:
        """All networks by name, unwrapped."""
        return {"student": unwrap(self.network)}

    def initialize(self) -> None:
        """Build as in one process: the same on all ranks."""
        with self.unwrapped():
            super().initialize()
        if self.ranks.number > 1 and any(isinstance(m, _BatchNorm) for m in self.network.modules()):
            raise NotImplementedError(
                f"{type(self).__name__} does not train networks with batch normalisation in several processes; "
                "use one GPU, or plans with instance normalisation (nnU-Net's default)"
            )

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Inside, nnU-Net's methods take the network as it is, not for DistributedDataParallel's."""
        is_ddp, self.is_ddp = self.is_ddp, False
        try:
            yield
        finally:
            self.is_ddp = is_ddp

    def _set_batch_size_and_oversample(self) -> None:
        """Sizes: of the plans' batch, of the whole one, and of this rank's part of it: samples rank, rank + n, ...

        Raises:
            InputError: more ranks than samples.
        """
        super()._set_batch_size_and_oversample()
        self.plans_batch_size = self.batch_size
        self.whole_batch_size = math.ceil(self.batch_size * self.config.streams.batch_share - 1e-9)
        self.batch_size = len(range(self.whole_batch_size)[self.ranks.part])
        if self.whole_batch_size < self.ranks.number:
            raise InputError(
                f"a batch of {self.whole_batch_size} cannot be shared out over {self.ranks.number} processes; use "
                "fewer, or raise batch_size in the plans"
            )

    # ---- hooks of nnU-Net

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Of the network in place."""
        with self.unwrapped():
            super().set_deep_supervision_enabled(enabled)

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Log and console are those of the rank that writes."""
        if self.local_rank == 0:
            super().print_to_log_file(*args, also_print_to_console=also_print_to_console, add_timestamp=add_timestamp)

    def on_train_start(self) -> None:
        """Each rank draws numbers of its own from here on; all begin with the same weights."""
        if not self.was_initialized:
            self.initialize()
        if self.ranks.rank:  # rank 0 draws as a training in one process does
            seed_everything(*self.entropy, self.ranks.rank, self.current_epoch)
        self.do_split()  # all at the same time: what is missing is built, and waited for
        with self.ranks.writing_elsewhere(self, "output_folder_base"):  # nnU-Net copies plans there from every rank
            super().on_train_start()
        self.ranks.require_equal(self.networks())

    def on_epoch_end(self) -> None:
        """Compare the networks of all ranks before anything is saved."""
        self.ranks.require_equal(self.networks())
        super().on_epoch_end()

    # ---- checkpoints

    def of_all_ranks(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state for a checkpoint, with the random states and positions of all ranks; as it is in one process."""
        if self.ranks.number == 1:
            return state
        return {**state, "ranks": self.ranks.gather({name: state[name] for name in PER_RANK if name in state})}

    def of_this_rank(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a checkpoint for this rank.

        With another number of processes than it was written by, ranks begin with the random states of ranks that there
        were, and draw numbers of their own (`reseed`): the training goes on, but not as it would have.
        """
        state = dict(state)
        saved = state.pop("ranks", None) or [{name: state[name] for name in PER_RANK if name in state}]
        if len(saved) == self.ranks.number:
            return {**state, **saved[self.ranks.rank]}
        self.print_to_log_file(
            f"WARNING: the checkpoint was written by {len(saved)} process(es), now there are {self.ranks.number}; the "
            "training goes on with other random numbers than it would have had"
        )
        entropy = (*self.entropy, self.ranks.rank, self.ranks.number, state["iteration"])
        return {**state, **saved[self.ranks.rank % len(saved)], "reseed": entropy}
