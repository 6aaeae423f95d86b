"""Trainings in two processes: what one process does with the same batches, its files once, and resumed exactly."""

import json
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
from processes import in_processes
from tiny import MEAN_TEACHER, SPARSE, Training

pytestmark = pytest.mark.slow
GMABS, CMEMS, BOTH = "nnUNetTrainerGMABS", "nnUNetTrainerCMEMS", "nnUNetTrainerGMABSMutual"
# Two processes sum in another order than one, and nnU-Net's optimiser lets such differences grow: after so many steps
# they are this much, as a share of a loss.
TOLERANCE = 1e-4
NO_NOISE = {"noise_sd": 0.0, "log_gamma_limit": 0.0}  # which is drawn sample by sample, in each process
SETTINGS = {
    SPARSE: {},
    MEAN_TEACHER: {"consistency": NO_NOISE},
    GMABS: tiny.MEAN_TEACHER_SETTINGS
    | {
        "consistency": tiny.MEAN_TEACHER_SETTINGS["consistency"] | NO_NOISE,
        "relabel": {"first": 0.25, "first_iterations": 0, "every": 0.5, "until": 0.8},
        "noise_tolerant": {"doubtful_as": "pseudo"},  # doubt is a matter of each process's samples
    },
    CMEMS: {
        "mutual": {
            "ramp_start": 0.0,
            "confidence": 0.0,
            "confidence_start": 0.0,
            "image": None,
            "feature": {"kinds": "none"},
        }
    },
}


def batch_of_four(project, folder):
    """The project with a batch that two processes can share; deep supervision and batch Dice as the plans say."""
    own = project.copy(folder)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = 4
    own.edit(f"{tiny.PLANS}.json", **plans)
    return own


@pytest.fixture(scope="module")
def shared(project, tmp_path_factory):
    return batch_of_four(project, tmp_path_factory.mktemp("shared"))


def trained(training, batches=None, stop=None, **options):
    """Train in this process, one of several or the only one: what each of them can tell.

    Args:
        training: which.
        batches: file with lists of whole batches for training and validation, to be shared out instead of drawn.
        stop: end as if killed before this iteration.
        options: of Training.here.
    """
    from nnunet_gmabs.trainers import loaders
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
    from nnunet_gmabs.trainers.resumable import ResumableTrainer

    torch.set_num_threads(1)
    seen, step = [], nnUNetTrainerSparse.train_step
    written = []

    def watched(trainer, batch):
        if trainer.iteration == stop:
            raise KeyboardInterrupt
        seen[:] = [trainer]
        return step(trainer, batch)

    def fixed(trainer):
        return tuple(map(iter, ([part_of(b, trainer.ranks.part) for b in kind] for kind in torch.load(batches))))

    save = ResumableTrainer.save_checkpoint

    def saving(trainer, file):
        before = {p: p.stat().st_mtime_ns for p in Path(trainer.output_folder).glob("*.pth")}
        save(trainer, file)
        written.append(before != {p: p.stat().st_mtime_ns for p in Path(trainer.output_folder).glob("*.pth")})

    with mock.patch.object(nnUNetTrainerSparse, "train_step", watched):
        try:
            if batches is None:
                training.here(**options)
            else:
                with mock.patch.object(loaders, "build", fixed):
                    training.here(**options)
        except KeyboardInterrupt:
            return None
    [trainer] = seen
    return {
        "losses": [row for row in trainer.history],
        "weights": {n: {k: v.numpy() for k, v in m.state_dict().items()} for n, m in trainer.networks().items()},
        "nnunet": [float(x) for x in trainer.logger.get_value("train_losses", None)],
        "batch size": trainer.batch_size,
    }


def part_of(batch, part):
    """Some samples of a batch."""
    return {
        name: [v[part] for v in value] if isinstance(value, list) and torch.is_tensor(value[0]) else value[part]
        for name, value in batch.items()
    }


def drawn(training, file):
    """Whole batches of a training, for training and validation, in a file."""
    trainer = training.build()
    with mock.patch.dict("os.environ", training.environment()):
        augmenters = trainer.get_dataloaders()
    numbers = trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    kinds = zip(augmenters, numbers, strict=True)
    torch.save([[next(a) for _ in range(trainer.num_epochs * number)] for a, number in kinds], file)
    return file


@pytest.mark.parametrize("trainer", [SPARSE, MEAN_TEACHER, GMABS])
def test_two_processes_learn_from_the_same_batches_what_one_does(trainer, shared, tmp_path):
    one, two = (Training(shared, tmp_path / n, trainer, settings=SETTINGS[trainer]) for n in ("one", "two"))
    batches = drawn(one, tmp_path / "batches.pt")
    alone = trained(one, batches)
    of_ranks = in_processes(2, tmp_path, trained, two, batches)
    assert [r["batch size"] for r in of_ranks] == [2, 2]
    worst = 0.0
    for row, wanted in zip(of_ranks[0]["losses"], alone["losses"], strict=True):
        for name in wanted:
            if name.startswith(("loss/", "weight/", "gradient_ratio/", "pseudo_dice/")):
                difference = abs(row[name] - wanted[name]) / max(abs(wanted[name]), 1e-3)
                worst = max(worst, difference if difference == difference else 0.0)
                assert difference < TOLERANCE or wanted[name] != wanted[name], (name, row[name], wanted[name])
    print(f"{trainer}: largest difference {worst:.2g}")
    for a, b in zip(of_ranks[0]["nnunet"], alone["nnunet"], strict=True):
        assert a == pytest.approx(b, rel=TOLERANCE)
    for name, weights in of_ranks[0]["weights"].items():  # bit for bit on both ranks
        assert all((value == of_ranks[1]["weights"][name][key]).all() for key, value in weights.items())
    assert len(list(two.output.glob("training_log_*.txt"))) == 1
