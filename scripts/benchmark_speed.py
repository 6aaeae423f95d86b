"""Step time and memory of our trainers over stock nnU-Net's, in turn, in one process; and what loading a batch takes.

    python scripts/benchmark_speed.py -d 4 -p nnUNetPlansCPU [--steps 20] [--device cpu] [--bfloat16] [--json FILE]

needs a data set that `gmabs prepare` has made ready. Every trainer steps on a batch of its own loader, as it trains:
MeanTeacher and GMABS with unlabelled samples on top, CMEMS with as many unlabelled ones as labelled ones and two
networks; stock nnU-Net on the batch of nnUNetTrainerSparse, for its own loader refuses scans without labels. All terms
are on, as late in a training; GMABS learns from pseudo labels that lie in the batch. Printed for each trainer: the
median step and its ratio to stock's, with the 90 % range of ratios of neighbouring steps; the median time of loading a
batch in this process; on CUDA the memory that a step takes beyond what lies there before it (for a CPU,
scripts/benchmark.py has the highest resident memory of whole trainings). On CUDA nnU-Net compiles unless
nnUNet_compile=f. Only a temporary folder is written.
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
from typing import Any

import numpy as np

NAMES = ("Sparse", "MeanTeacher", "GMABS", "CMEMS", "GMABSMutual")
WARM_UP = 3


class Measured:
    """A trainer, the batch that it steps on, and what was seen."""

    def __init__(self, trainer: Any, batch: dict[str, Any], loading: list[float]) -> None:
        self.trainer, self.batch, self.loading = trainer, batch, loading
        self.seconds: list[float] = []
        self.mib = float("nan")
        # late, so that every term is on; not at the start of an epoch, where gradient norms are measured
        trainer.iteration = trainer.num_epochs * trainer.num_iterations_per_epoch * 9 // 10 + 1
        trainer.network.train()

    def step(self, device: Any) -> float:
        """Seconds of one training step on a copy of the batch."""
        import torch

        def copy(value: Any) -> Any:
            if isinstance(value, list):
                return [copy(v) for v in value]
            return value.clone() if isinstance(value, torch.Tensor) else value

        batch = {key: copy(value) for key, value in self.batch.items()}
        synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        synchronise()
        start = time.perf_counter()
        self.trainer.train_step(batch)
        synchronise()
        return time.perf_counter() - start


def build(trainer_class: type, arguments: tuple, device: Any) -> Any:
    """An initialised trainer for fold all, without its messages on the screen."""
    plans_file, dataset_json, configuration = arguments
    with contextlib.redirect_stdout(io.StringIO()):
        plans = {**json.loads(plans_file.read_text()), "continue_training": False}
        trainer = trainer_class(plans, configuration, "all", dataset_json, device)
        trainer.initialize()
    return trainer


def measured(trainer: Any) -> Measured:
    """With a batch of its own loader, and the time that some batches took to load."""
    import torch

    with contextlib.redirect_stdout(io.StringIO()):
        loader = trainer.get_dataloaders()[0]
        loading = []
        for _ in range(WARM_UP + 5):
            start = time.perf_counter()
            batch = next(loader)
            loading.append(time.perf_counter() - start)
    if hasattr(trainer, "rounds_due"):  # as after a round: what an expert drew, and made labels elsewhere
        trainer.round = 1
        expert, ignore = batch["target"][0], trainer.label_manager.ignore_label
        made = torch.zeros_like(expert)
        made[..., expert.shape[-1] // 2 :] = 1
        batch["pseudo"] = torch.where(expert == ignore, made, expert)
    return Measured(trainer, batch, loading[WARM_UP:])


def memory(one: Measured, device: Any) -> float:
    """MiB that a step takes beyond what is there before it; NaN on a CPU, whose allocators keep what they once had."""
    import torch

    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one.step(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return float("nan")


def profile(one: Measured, device: Any, number: int) -> str:
    """Where one step spends its time: torch's table of the operators that take most, by the shapes they see."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profiler(activities=activities, record_shapes=True) as seen:
        one.step(device)
    by = f"self_{'device' if device.type == 'cuda' else 'cpu'}_time_total"
    return seen.key_averages(group_by_input_shape=True).table(sort_by=by, row_limit=number, max_shapes_column_width=60)


def rows(stock: Measured, all_of_them: list[tuple[str, Measured]]) -> list[dict[str, Any]]:
    """Figures of each trainer."""
    result = []
    for name, one in all_of_them:
        ratios = np.array(one.seconds) / np.array(stock.seconds)
        low, high = np.percentile(ratios, [5, 95])
        result.append(
            {
                "trainer": name,
                "samples": len(one.batch["data"]),
                "step_seconds": float(np.median(one.seconds)),
                "ratio": float(np.median(ratios)),
                "ratio_90": [float(low), float(high)],
                "step_mib": one.mib,
                "memory_ratio": one.mib / stock.mib,
                "loading_seconds": float(np.median(one.loading)),
            }
        )
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="data set name or ID")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--bfloat16", action="store_true", help="our trainers with cpu_bfloat16; stock has no such thing"
    )
    parser.add_argument("--profile", type=int, metavar="N", help="also the N longest operators of a step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    settings = folder / "settings.json"
    settings.write_text(json.dumps({"cpu_bfloat16": args.bfloat16}))
    os.environ |= {"nnUNet_results": str(folder), "nnUNet_n_proc_DA": "0", "nnUNet_gmabs_config": str(settings)}
    import torch
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_gmabs.files import write_json
    from nnunet_gmabs.nnunet_ext import gmabs_trainers
    from nnunet_gmabs.report.tables import markdown_table

    name = maybe_convert_to_dataset_name(int(args.d) if args.d.isdigit() else args.d)
    where = Path(str(nnUNet_preprocessed), name)
    arguments = (where / f"{args.p}.json", json.loads((where / "dataset.json").read_text()), args.c)
    device = torch.device(args.device)
    ours = [(n, measured(build(getattr(gmabs_trainers, f"nnUNetTrainer{n}"), arguments, device))) for n in NAMES]
    stock = Measured(build(nnUNetTrainer, arguments, device), ours[0][1].batch, ours[0][1].loading)
    everyone = [("stock nnU-Net", stock), *ours]
    for _, one in everyone:
        for _ in range(WARM_UP):
            one.step(device)
        one.mib = memory(one, device)
    for _ in range(args.steps):
        for _, one in everyone:
            one.seconds.append(one.step(device))
    for trainer, one in everyone if args.profile else ():
        print(f"{trainer}\n{profile(one, device, args.profile)}")
    result = rows(stock, everyone)
    if args.json:
        known = [{key: value for key, value in row.items() if value == value} for row in result]  # without NaN
        write_json(args.json, {"device": args.device, "bfloat16": args.bfloat16, "rows": known})
    lines = [
        [
            r["trainer"],
            str(r["samples"]),
            f"{r['step_seconds']:.3f}",
            f"{r['ratio']:.2f} ({r['ratio_90'][0]:.2f} to {r['ratio_90'][1]:.2f})",
            f"{r['loading_seconds']:.3f}",
            *([f"{r['step_mib']:.0f}", f"{r['memory_ratio']:.2f}"] if device.type == "cuda" else []),
        ]
        for r in result
    ]
    header = ["trainer", "samples", "s a step", "over stock", "s to load"]
    header += ["MiB", "over stock"] if device.type == "cuda" else []
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
