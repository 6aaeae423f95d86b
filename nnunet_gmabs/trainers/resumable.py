"""What --c needs: everything of a training in its checkpoints, and back again."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_gmabs import __version__
from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.errors import InputError, first_line
from nnunet_gmabs.files import write_json
from nnunet_gmabs.settings import refuse_other_settings
from nnunet_gmabs.trainers import checkpoint as checkpoints
from nnunet_gmabs.trainers import progress, random_state
from nnunet_gmabs.trainers.distributed import DistributedTrainer, unwrap
from nnunet_gmabs.trainers.progress import EpochMeans

WAITING = ("random", "batches_drawn", "reseed")  # what of a checkpoint is taken over when the first epoch begins


class ResumableTrainer(DistributedTrainer):
    """nnU-Net's trainer with checkpoints that predict anywhere and resume exactly.

    A checkpoint has nnU-Net's names and keys: network_weights is the network meant for inference and
    trainer_name is nnUNetTrainer, so stock nnU-Net predicts with it. All else is under the key gmabs. Checkpoints are
    saved and loaded by all ranks at the same time, and written by one.
    """

    config: GMABSConfig
    schedule_epochs: int
    epoch_means: EpochMeans

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.iteration = 0
        self.history: list[dict[str, Any]] = []
        self._resume_from: dict[str, Any] | None = None

    @property
    def inference_network(self) -> nn.Module:
        """The network that checkpoints hold for prediction."""
        raise NotImplementedError

    # ---- saving

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint and ours in one file, replaced atomically; a full disk costs no training."""
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        content = {
            "network_weights": unwrap(self.inference_network).state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": nnUNetTrainer.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "gmabs": self.of_all_ranks(self.state()),
        }
        if not self.ranks.writes:
            return
        try:
            checkpoints.save(content, Path(filename))
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            message = f"{filename}: could not be written ({first_line(error)}); is the disk full or read-only?"
            if Path(filename).name == checkpoints.NAMES[0]:
                raise InputError(f"{message} Make room and continue with --c.") from error
            self.print_to_log_file(f"WARNING: {message} The training goes on; the checkpoint before stays valid.")

    def state(self) -> dict[str, Any]:
        """What nnU-Net does not know of: networks, settings, random states, positions, history."""
        return {
            "trainer": type(self).__name__,
            "config": asdict(self.config),
            "schedule_epochs": self.schedule_epochs,
            "iteration": self.iteration,
            "networks": {name: network.state_dict() for name, network in self.networks().items()},
            "history": self.history,
            **self._positions(),
        }

    def _positions(self) -> dict[str, Any]:
        """Where the generators and loaders stand; where they stood, when no epoch followed a resumed one."""
        if self._resume_from is not None:  # a finished training continued: setting it up has drawn numbers
            return {name: self._resume_from[name] for name in WAITING[:2]}
        return {
            "random": random_state.capture(self.device),
            "batches_drawn": [loader.batches_drawn for loader in self._loaders_in_this_process()],
        }

    def _loaders_in_this_process(self) -> list[Any]:
        """Loaders inside nnU-Net's single-threaded augmenters; workers keep theirs in other processes."""
        augmenters = (self.dataloader_train, self.dataloader_val)
        return [a.data_loader for a in augmenters if isinstance(a, SingleThreadedAugmenter)]

    # ---- resuming

    def load_checkpoint(self, filename_or_checkpoint: str | dict) -> None:
        """Continue where a checkpoint stands; the newest readable one when this one is damaged.

        Raises:
            InputError: no readable checkpoint, another trainer's, or other settings than now.
        """
        if not self.was_initialized:
            self.initialize()
        if isinstance(filename_or_checkpoint, dict):
            content, name = filename_or_checkpoint, "checkpoint"
        else:
            content, file = checkpoints.load_newest_readable(
                Path(filename_or_checkpoint), self.device, lambda line: self.print_to_log_file(f"WARNING: {line}")
            )
            name = str(file)
        state = content.get("gmabs")
        if state is None or state["trainer"] != type(self).__name__:
            writer = content.get("trainer_name") if state is None else state["trainer"]
            raise InputError(f"{name}: written by {writer}; continue it with -tr {writer}")
        newer = refuse_other_settings(state["config"], self.config, name, type(self).config)
        if newer:
            self.print_to_log_file(f"newer than {name}, and as the trainer has them: {', '.join(newer)}")
        epochs = self.ranks.gather(content["current_epoch"])
        if len({*epochs}) > 1:
            raise InputError(f"{name}: the processes read checkpoints of epochs {epochs}; do they share one disk?")
        state = self.of_this_rank(state)
        self.my_init_kwargs = content["init_args"]
        self.current_epoch = content["current_epoch"]
        self.logger.load_checkpoint(content["logging"])
        self._best_ema = content["_best_ema"]
        self.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
        self.optimizer.load_state_dict(content["optimizer_state"])
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.load_state(state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what state() gave; random states wait for the first epoch, since set-up draws numbers."""
        for name, network in self.networks().items():
            network.load_state_dict(state["networks"][name])
        self.schedule_epochs, self.iteration = state["schedule_epochs"], state["iteration"]
        self.history = list(state["history"])
        self._resume_from = {name: state[name] for name in WAITING if name in state}

    # ---- hooks of nnU-Net

    def on_train_start(self) -> None:
        """nnU-Net's start; a new run sets an older run's checkpoints aside, and notes its settings."""
        super().on_train_start()
        folder = Path(self.output_folder)
        if not self.ranks.writes:
            return
        checkpoints.clean_up(folder)
        if self._resume_from is None:
            moved = checkpoints.set_aside(folder)
            if moved:
                self.print_to_log_file(f"moved to previous_run/: {', '.join(moved)}")
            progress.remove_logs(folder)
        versions = {"nnunet_gmabs": __version__, "torch": torch.__version__, "python": platform.python_version()}
        record = {"trainer": type(self).__name__, "config": asdict(self.config), "versions": versions}
        write_json(folder / "gmabs.json", record)
        self.print_to_log_file("settings:", record["config"])

    def on_train_end(self) -> None:
        """nnU-Net's end, which leaves checkpoint_final.pth alone beside `best`."""
        super().on_train_end()
        if self.ranks.writes:
            Path(self.output_folder, checkpoints.PREVIOUS).unlink(missing_ok=True)

    def on_epoch_start(self) -> None:
        """Restore random states here: building the data loaders before has drawn from them."""
        super().on_epoch_start()
        if self._resume_from is not None:
            random_state.restore(self._resume_from["random"], self.device)
            if "reseed" in self._resume_from:
                random_state.seed_everything(*self._resume_from["reseed"])
            # no entries when either of the two trainings had data workers
            for loader, drawn in zip(self._loaders_in_this_process(), self._resume_from["batches_drawn"], strict=False):
                loader.batches_drawn = drawn
            self._resume_from = None

    def on_epoch_end(self) -> None:
        """nnU-Net's end of an epoch, with `best` settled before `latest` is written, and our log."""
        if self._best_ema is not None and self._best_ema != self._best_ema:
            self._best_ema = None  # NaN compares false with every later value
        means = self.epoch_means.take(self.ranks.gather)
        self.history.append({"epoch": self.current_epoch, **means, **self.epoch_summary()})
        save_every, self.save_every = self.save_every, self.num_epochs + 1
        super().on_epoch_end()
        self.save_every = save_every
        if self.current_epoch % save_every == 0 and self.current_epoch < self.num_epochs:
            self.save_latest()
        if self.ranks.writes:
            progress.write_log(Path(self.output_folder), self.history)
            progress.plot_log(Path(self.output_folder), self.history)

    def save_latest(self) -> None:
        """Write checkpoint_latest.pth between two epochs."""
        self.current_epoch -= 1  # nnU-Net's checkpoints count the epoch that is being finished
        self.save_checkpoint(str(Path(self.output_folder, checkpoints.NAMES[1])))
        self.current_epoch += 1

    def epoch_summary(self) -> dict[str, float]:
        """Values for the log that are known once an epoch."""
        return {}
