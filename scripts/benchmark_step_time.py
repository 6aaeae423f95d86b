"""Step time of our trainers over stock nnU-Net's, on the same samples, in turn, in one process.

Stock and Sparse get as many samples as the plans say, MeanTeacher the same ones and its unlabelled ones on top. CMEMS
gets a batch of its own of the plans' size, half labelled, and steps two networks.

    python scripts/benchmark_step_time.py -d 4 -c 3d_fullres -p nnUNetPlansCPU [--steps 20] [--device cpu]

needs a data set that `gmabs prepare` has made ready. Prints the median of each trainer and its ratio to
stock's, with the 90 % range of ratios of neighbouring steps. Nothing is written but a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np


def build(trainer_class, plans_file: Path, dataset_json: dict, configuration: str, device):
    """An initialised trainer for fold all, without its messages on the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        plans = {**json.loads(plans_file.read_text()), "continue_training": False}
        trainer = trainer_class(plans, configuration, "all", dataset_json, device)
        trainer.initialize()
    return trainer


def seconds(trainer, batch: dict, device) -> float:
    """Wall time of one training step on a copy of the trainer's own number of samples of the batch."""
    import torch

    n = trainer.batch_size
    target = [t[:n].clone() for t in batch["target"]]
    copy = {"data": batch["data"][:n].clone(), "target": target, "labelled": batch["labelled"][:n]}
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    trainer.train_step(copy)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="data set name or ID")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    os.environ["nnUNet_results"] = tempfile.mkdtemp()
    os.environ["nnUNet_n_proc_DA"] = "0"
    import torch
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
    from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher
    from nnunet_gmabs.trainers.mutual import nnUNetTrainerCMEMS

    name = maybe_convert_to_dataset_name(int(args.d) if args.d.isdigit() else args.d)
    folder = Path(str(nnUNet_preprocessed), name)
    dataset_json = json.loads((folder / "dataset.json").read_text())
    device = torch.device(args.device)
    classes = (nnUNetTrainer, nnUNetTrainerSparse, nnUNetTrainerMeanTeacher, nnUNetTrainerCMEMS)
    trainers = [build(c, folder / f"{args.p}.json", dataset_json, args.c, device) for c in classes]
    with contextlib.redirect_stdout(io.StringIO()):
        shared, own = (next(trainer.get_dataloaders()[0]) for trainer in trainers[-2:])
    batches = [shared] * (len(trainers) - 1) + [own]
    for trainer, batch in zip(trainers, batches, strict=True):
        trainer.network.train()
        # late, so that every term is on; not at the start of an epoch, where gradient norms are measured
        trainer.iteration = trainer.num_epochs * trainer.num_iterations_per_epoch * 9 // 10 + 1
        for _ in range(3):
            seconds(trainer, batch, device)
    pairs = list(zip(trainers, batches, strict=True))
    times = np.array([[seconds(trainer, batch, device) for trainer, batch in pairs] for _ in range(args.steps)])
    for i, trainer in enumerate(trainers):
        ratios = times[:, i] / times[:, 0]
        low, high = np.percentile(ratios, [5, 95])
        median = np.median(times, axis=0)
        print(
            f"{type(trainer).__name__:28s} median {median[i]:.3f} s, {median[i] / median[0]:.2f} x stock"
            f" (90 % of pairs {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
