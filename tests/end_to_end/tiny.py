"""A tiny data set, and trainings of seconds on it: by nnU-Net's real commands, or by their functions in this process.

A command costs about ten seconds of imports, and its final validation twice that for processes of its own. So the
commands show that the path holds from end to end, and what they call shows the many cases.
"""

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import types
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest import mock

import raw_data
import torch

from nnunet_gmabs.data.prepare import PrepareOptions, prepare

PLANS = "nnUNetPlansTiny"
SETTINGS = {"num_epochs": 4, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 2, "save_every": 1}
MEAN_TEACHER_SETTINGS = {
    "inference_network": "teacher",  # of the two the one that is harder to get into a checkpoint
    "streams": {"batch_share": 1.0, "labelled_share": 0.5},
    # so young a teacher is sure of nothing
    "consistency": {"weight": 0.5, "ramp_start": 0.0, "ramp_end": 0.6, "confidence": 0.0},
}
TIMEOUT = 600  # seconds for a command; it takes 20 to 40 on two free cores
MEAN_TEACHER, SPARSE = "nnUNetTrainerMeanTeacher", "nnUNetTrainerSparse"


@dataclass(frozen=True)
class Project:
    """A folder with nnUNet_raw and nnUNet_preprocessed, and one data set in them."""

    folder: Path
    dataset: str

    @property
    def number(self) -> str:
        return str(int(self.dataset[7:10]))

    @property
    def raw(self) -> Path:
        return self.folder / "nnUNet_raw" / self.dataset

    @property
    def pre(self) -> Path:
        return self.folder / "nnUNet_preprocessed" / self.dataset

    def variables(self) -> dict[str, str]:
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.folder / name) for name in names}

    def copy(self, folder: Path) -> "Project":
        """The same data set elsewhere, to be changed."""
        shutil.copytree(self.pre, folder / "nnUNet_preprocessed" / self.dataset)
        shutil.copytree(self.raw, folder / "nnUNet_raw" / self.dataset)
        return Project(folder, self.dataset)

    def edit(self, name: str, **changes) -> None:
        """Change a JSON file of the preprocessed data set."""
        content = json.loads((self.pre / name).read_text())
        (self.pre / name).write_text(json.dumps(content | changes))


def make_project(
    folder: Path, dataset: str, configurations=("3d_fullres",), channels=("MRI",), dense=False, **more
) -> Project:
    """Scans made in code, three of seven with three planes each; prepared as a user would, with tiny plans.

    Args:
        folder: an empty one.
        dataset: its name.
        configurations: of the tiny plans, to be preprocessed.
        channels: of each scan.
        dense: four scans instead, all labelled everywhere, and no ignore label.
        more: fields of dataset.json.
    """
    project = Project(folder, dataset)
    for path in project.variables().values():
        Path(path).mkdir()
    if dense:
        raw_data.write_raw(project.raw, 4, (), raw_data.LABELS, channels)
        for number in range(4):
            raw_data.write_labels(project.raw, number, planes=None)
    else:
        raw_data.write_raw(project.raw, 7, (0, 1, 2), raw_data.SPARSE_LABELS, channels)
    content = json.loads((project.raw / "dataset.json").read_text())
    (project.raw / "dataset.json").write_text(json.dumps(content | more))
    with mock.patch.dict(os.environ, project.variables()):
        prepare(PrepareOptions(dataset, configurations=("3d_fullres",)))
        write_tiny_plans(project.pre)
        prepare(PrepareOptions(dataset, configurations=configurations, plans=PLANS))
    return project


def write_tiny_plans(pre: Path) -> None:
    """Plans that differ from nnU-Net's in patch, batch and network; 3d_lowres has twice the spacing."""
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    configurations = plans["configurations"]
    full = configurations["3d_fullres"]
    configurations["3d_lowres"] = json.loads(json.dumps(full)) | {
        "data_identifier": "nnUNetPlans_3d_lowres",
        "spacing": [2 * s for s in full["spacing"]],
    }
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    for name in ("2d", "3d_fullres", "3d_lowres"):
        axes = int(name[0])
        configurations[name] |= {"patch_size": [16] * axes, "batch_size": 2}
        configurations[name]["architecture"]["arch_kwargs"] |= {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "kernel_sizes": [[3] * axes] * 2,
            "strides": [[1] * axes, [2] * axes],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
        }
    (pre / f"{PLANS}.json").write_text(json.dumps(plans | {"plans_name": PLANS}))


@dataclass
class Training:
    """One training in a folder of its own.

    Attributes:
        project: its data.
        folder: gets the settings file and nnUNet_results.
        settings: override those of SETTINGS.
        variables: of the environment, beside nnU-Net's three.
    """

    project: Project
    folder: Path
    trainer: str = MEAN_TEACHER
    configuration: str = "3d_fullres"
    fold: str = "0"
    plans: str = PLANS
    workers: int = 0
    settings: dict = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """nnU-Net's folder of this training."""
        name = f"{self.trainer}__{self.plans}__{self.configuration}"
        return self.folder / "nnUNet_results" / self.project.dataset / name / f"fold_{self.fold}"

    @property
    def final(self) -> Path:
        return self.output / "checkpoint_final.pth"

    def environment(self) -> dict[str, str]:
        """All variables that the training sees; writes the settings file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nnUNet_results").mkdir(exist_ok=True)
        file = self.folder / "settings.json"
        defaults = SETTINGS | (MEAN_TEACHER_SETTINGS if "MeanTeacher" in self.trainer else {})
        file.write_text(json.dumps(merge(defaults, self.settings)))
        own = {
            "nnUNet_results": str(self.folder / "nnUNet_results"),
            "nnUNet_gmabs_config": str(file),
            "nnUNet_n_proc_DA": str(self.workers),
        }
        return {**os.environ, **self.project.variables(), **own, **self.variables}

    def arguments(self, *options: str) -> list[str]:
        """What nnUNetv2_train is given."""
        what = [self.project.number, self.configuration, self.fold, "-tr", self.trainer, "-p", self.plans]
        return [*what, "-device", "cpu", *options]

    def command(self, *options: str) -> str:
        """Run nnUNetv2_train, and return what it printed."""
        return run_command("nnUNetv2_train", *self.arguments(*options), environment=self.environment())

    def here(self, **options: bool) -> None:
        """What nnUNetv2_train does after it has read its arguments, in this process; options as its run_training."""
        from nnunetv2.run.run_training import run_training

        with mock.patch.dict(os.environ, self.environment()), cheap():
            run_training(
                self.project.number,
                self.configuration,
                self.fold,
                self.trainer,
                self.plans,
                device=torch.device("cpu"),
                **options,
            )

    def in_child(self, before=None, continue_training: bool = False, seconds: float = TIMEOUT) -> int:
        """Call here() in a process of its own, killed after so many seconds; its exit code, negative for a signal.

        Not a fork of this one: once it has trained itself, autograd refuses to work in its forks.

        Args:
            before: a function of a module, called in the child first; may patch whatever it likes.
            continue_training: as nnUNetv2_train --c.
            seconds: until SIGKILL.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nnunetv2.run.run_training", "nnunet_gmabs.trainers.variants"])
        child = context.Process(target=_train, args=(self, before, continue_training))
        child.start()
        child.join(seconds)
        child.kill()
        child.join()
        return child.exitcode

    def build(self):
        """The trainer, initialised, in this process."""
        from nnunetv2.run.run_training import get_trainer_from_args

        with mock.patch.dict(os.environ, self.environment()):
            fold = self.fold if self.fold == "all" else int(self.fold)
            what = self.project.number, self.configuration, fold, self.trainer, self.plans
            trainer = get_trainer_from_args(*what, device=torch.device("cpu"))
            trainer.initialize()
            return trainer

    def log(self) -> str:
        """What all runs of this training wrote into their log files."""
        return "\n".join(path.read_text() for path in sorted(self.output.glob("training_log_*.txt")))


def _train(training: Training, before, continue_training: bool) -> None:
    """Runs in the child of Training.in_child."""
    if before is not None:
        before()
    training.here(continue_training=continue_training)


def merge(settings: dict, changes: dict) -> dict:
    """Settings with some replaced, groups field by field."""
    groups = [name for name in changes if isinstance(settings.get(name), dict) and isinstance(changes[name], dict)]
    return settings | changes | {name: settings[name] | changes[name] for name in groups}


def executable(name: str) -> list[str]:
    """The command of that name beside this Python."""
    path = Path(sys.executable).parent / name
    return [str(path)] if path.is_file() else [sys.executable, "-c", _WITHOUT_SCRIPT, name]


_WITHOUT_SCRIPT = """
import importlib.metadata, sys
name = sys.argv.pop(1)
if __name__ == "__main__":
    [command] = importlib.metadata.entry_points(group="console_scripts", name=name)
    sys.exit(command.load()())
"""


def run_command(name: str, *arguments: str, environment: dict[str, str], expect: int = 0) -> str:
    """Run one of nnU-Net's commands; what it printed. Its exit status must be the expected one."""
    return wait(start(*executable(name), *arguments, environment=environment), expect)


def start(*command: str, environment: dict[str, str], folder: Path | None = None) -> subprocess.Popen:
    """Start a command in a process group of its own, its output in a pipe."""
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen, expect: int = 0) -> str:
    """What a command printed when it has ended; it is killed when it takes too long."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        kill(process)
        raise AssertionError(f"still running after {TIMEOUT} s:\n{process.communicate()[0][-3000:]}") from None
    assert process.returncode == expect, output[-3000:]
    return output


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to a command and all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def cheap():
    """Inside, nnU-Net's final validation uses a thread instead of processes, and no pictures are drawn.

    Each new process would import torch and nnU-Net; that and the pictures take longer than all else here. One thread,
    because SimpleITK may crash when several read at the same time.
    """
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.training.logging.nnunet_logger import LocalLogger
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    from nnunet_gmabs.trainers import progress

    threads = types.SimpleNamespace(get_context=lambda _: types.SimpleNamespace(Pool=lambda _: ThreadPool(1)))
    with (
        mock.patch.object(module, "multiprocessing", threads),
        mock.patch.object(evaluate_predictions, "multiprocessing", threads),
        mock.patch.object(LocalLogger, "plot_progress_png", lambda *_: None),
        mock.patch.object(progress, "plot_log", lambda *_: None),
    ):
        yield


def load(file: Path) -> dict:
    """A checkpoint, in the way that runs no code from it."""
    return torch.load(file, map_location="cpu", weights_only=True)


def read_log(training: Training) -> list[dict[str, float]]:
    """gmabs_log.csv, one dictionary an epoch."""
    with open(training.output / "gmabs_log.csv", newline="") as f:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(f)]


def differences(a, b, path: str = "") -> list[str]:
    """Paths inside two nested structures at which they differ in any bit; times of day do not count."""
    if path.endswith("_timestamps"):
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{path}/{key}" for key in a.keys() ^ b.keys()]
        return missing + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{path} (lengths {len(a)}, {len(b)})"]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        return [] if same else [path]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [path]
