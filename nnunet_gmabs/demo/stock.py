"""Stock nnU-Net with another number of iterations, as the control in comparisons.

nnUNetTrainer always trains 1,000 epochs of 250 iterations. What is written here is a subclass that sets the
numbers of epochs and iterations, seeds the generators, heeds OMP_NUM_THREADS, and changes nothing else. It is
written into a folder of its own at run time, so that only the comparison that asked for it can find it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TEMPLATE = '''"""{first_line}"""

import os
import random

import numpy as np
import torch

from nnunetv2.training.nnUNetTrainer.{module} import {base}


class {name}({base}):
    """{base}, but for its length, its seed and its threads."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = {epochs}
        self.num_iterations_per_epoch = {iterations_per_epoch}
        self.num_val_iterations_per_epoch = {val_iterations_per_epoch}
        self.save_every = {epochs}  # the final checkpoint is all that is used
        random.seed({seed})
        np.random.seed({seed})
        torch.manual_seed({seed})
        if device.type == "cpu" and os.environ.get("OMP_NUM_THREADS"):  # nnU-Net's command takes all cores
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
'''


STOCK = "stock"
NO_MIRRORING = "stock, no mirroring"
BASES = {  # nnU-Net's own trainers that are controls: where each is, below nnunetv2.training.nnUNetTrainer
    STOCK: "nnUNetTrainer",
    NO_MIRRORING: "variants.data_augmentation.nnUNetTrainerNoMirroring",
}


@dataclass(frozen=True)
class Schedule:
    """How long a training is; the same for every row of a comparison.

    Attributes:
        epochs, iterations_per_epoch: training iterations are their product.
        val_iterations_per_epoch: nnU-Net validates on patches after every epoch.
    """

    epochs: int
    iterations_per_epoch: int
    val_iterations_per_epoch: int = 2

    @property
    def iterations(self) -> int:
        """Training iterations in all."""
        return self.epochs * self.iterations_per_epoch

    @classmethod
    def of(cls, iterations: int, iterations_per_epoch: int = 50) -> Schedule:
        """The schedule of that many iterations, rounded up to whole epochs.

        >>> Schedule.of(600)
        Schedule(epochs=12, iterations_per_epoch=50, val_iterations_per_epoch=2)
        >>> Schedule.of(20)
        Schedule(epochs=1, iterations_per_epoch=20, val_iterations_per_epoch=2)
        """
        per_epoch = min(iterations, iterations_per_epoch)
        return cls(-(-iterations // per_epoch), per_epoch)


def write_stock_trainer(folder: Path, schedule: Schedule, seed: int, kind: str = STOCK) -> str:
    """Write the subclass into a folder of its own and return its name, which is the value for -tr.

    The name tells schedule and seed, so that results of different ones do not share a folder. Stock nnU-Net has no
    seed: here Python, NumPy and torch are seeded when the trainer is made, which fixes the first weights; with data
    workers the batches still differ from run to run.

    Args:
        folder: made if needed. nnU-Net finds the class when nnUNet_extTrainer names this folder.
        schedule: length of the training.
        seed: of Python, NumPy and torch.
        kind: one of BASES.
    """
    base = BASES[kind].split(".")[-1]
    name = f"{base.replace('Trainer', 'TrainerStock')}_{schedule.epochs}x{schedule.iterations_per_epoch}_seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    text = _TEMPLATE.format(
        first_line="Written by nnunet_gmabs for one comparison; safe to delete afterwards.",
        name=name,
        module=BASES[kind],
        base=base,
        seed=seed,
        epochs=schedule.epochs,
        iterations_per_epoch=schedule.iterations_per_epoch,
        val_iterations_per_epoch=schedule.val_iterations_per_epoch,
    )
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return name


def with_trainer_folder(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """A copy of the environment in which nnU-Net also looks for trainers in folder, after all it knew before."""
    known = [part for part in environment.get("nnUNet_extTrainer", "").split(os.pathsep) if part]
    if str(folder) not in known:
        known.append(str(folder))
    return {**environment, "nnUNet_extTrainer": os.pathsep.join(known)}
