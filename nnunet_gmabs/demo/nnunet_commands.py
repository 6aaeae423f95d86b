"""nnU-Net's own commands for training and prediction on the CPU, as steps of a comparison."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_gmabs.demo.side_by_side import Step, count_in_file
from nnunet_gmabs.demo.stock import BASES, Schedule, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlansCPU"
FOLD = "0"


@dataclass(frozen=True)
class Workplace:
    """A folder that holds all of nnU-Net's folders for one comparison, so that the user's own stay untouched.

    Attributes:
        folder: everything lies below it.
        threads: for each command.
    """

    folder: Path
    threads: int

    @property
    def raw(self) -> Path:
        """The folder that nnUNet_raw names."""
        return self.folder / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """The folder that nnUNet_preprocessed names."""
        return self.folder / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """The folder that nnUNet_results names."""
        return self.folder / "nnUNet_results"

    def environment(self) -> dict[str, str]:
        """For processes that work here: nnU-Net's folders, one worker, so many threads."""
        return {
            **os.environ,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",  # each worker process costs seconds of imports
            "OMP_NUM_THREADS": str(self.threads),
            "GOMP_SPINCOUNT": "0",  # threads that wait by spinning take the cores from the command beside
            "PYTHONUNBUFFERED": "1",  # the progress is read from the log
        }

    def train(
        self,
        dataset: int,
        trainer: str,
        schedule: Schedule,
        seed: int,
        title: str,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[Step, str]:
        """The training of one fold with nnUNetv2_train.

        Args:
            dataset: ID.
            trainer: name for -tr, or "stock" for nnUNetTrainer of this length.
            schedule: its length.
            seed: of weights, and of batches where there are no data workers.
            title: for the screen, and the log's name.
            settings: of our trainers, beside schedule and seed; those that a trainer has no use for have no effect.

        Returns:
            The step and the trainer's name as prediction needs it.
        """
        environment = self.environment() | {"nnUNet_n_proc_DA": "0"}  # in-process: no cores are left for workers
        if trainer in BASES:
            trainer = write_stock_trainer(self.trainers, schedule, seed, trainer)
            environment = with_trainer_folder(environment, self.trainers)
        else:
            environment["nnUNet_gmabs_config"] = str(self._write_settings(schedule, seed, settings or {}))
        command = [find_command("nnUNetv2_train"), str(dataset), CONFIGURATION, FOLD]
        command += ["-tr", trainer, "-p", PLANS, "-device", "cpu"]
        log = self.log(title)
        # The final validation counts as one more epoch.
        step = Step(title, command, environment, log, schedule.epochs + 1, lambda: count_in_file(log, "Epoch time:"))
        return step, trainer

    def predict(self, dataset: int, trainer: str, images: Path, output: Path, title: str) -> Step:
        """Prediction of a folder with nnUNetv2_predict, without mirroring.

        Args:
            dataset: ID.
            trainer: as train() returned it.
            images: folder of scans with one channel each.
            output: folder to make.
            title: for the screen, and the log's name.
        """
        command = [find_command("nnUNetv2_predict"), "-i", str(images), "-o", str(output), "-d", str(dataset)]
        command += ["-c", CONFIGURATION, "-p", PLANS, "-tr", trainer, "-f", FOLD]
        command += ["-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta"]  # 0: no processes, which cost seconds
        environment = with_trainer_folder(self.environment(), self.trainers)
        total = len(list(images.glob("*.nii.gz")))
        return Step(title, command, environment, self.log(title), total, lambda: len(list(output.glob("*.nii.gz"))))

    @property
    def trainers(self) -> Path:
        """Where stock trainers of another length are written."""
        return self.folder / "trainers"

    def log(self, title: str) -> Path:
        """The file for the output of one command."""
        return self.folder / "logs" / f"{title.replace(',', '').replace(' ', '_')}.log"

    def _write_settings(self, schedule: Schedule, seed: int, more: Mapping[str, Mapping[str, Any]]) -> Path:
        """The settings file of our trainers: the schedule of stock nnU-Net, the seed, and what else is set."""
        settings = {
            "num_epochs": schedule.epochs,
            "num_iterations_per_epoch": schedule.iterations_per_epoch,
            "num_val_iterations_per_epoch": schedule.val_iterations_per_epoch,
            "save_every": schedule.epochs,
            "seed": seed,
            **more,
        }
        path = self.folder / f"settings_{schedule.epochs}x{schedule.iterations_per_epoch}_seed{seed}.json"
        write_json(path, settings)
        return path


def find_command(name: str) -> str:
    """Path of a program that was installed with nnU-Net, of this environment first.

    Raises:
        InputError: if there is none.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise InputError(f"{name}: not found; is nnunetv2 installed in the environment of {sys.executable}?")
    return found
