"""The main job on real scans: sparse planes, unlabelled scans, and the controls.

    python scripts/benchmark_main_job.py FOLDER/Dataset004_Hippocampus --work DIR [--iterations 600] [--jobs 2]

FOLDER/DatasetXXX_Name is a densely labelled data set in nnU-Net's raw format, with labelsTs if it has test scans.
--test of its training scans join the test set. For each budget and seed, `gmabs sparsify` keeps three planes
of a few scans and `gmabs prepare --cpu` makes the rest ready; all rows train the same number of iterations with
the same plans through nnUNetv2_train, and predict the test scans through nnUNetv2_predict --disable_tta.
Seeds draw the labelled scans and seed the training. Stock nnU-Net sees labelled scans only, like the others
that have no use for unlabelled ones.

A row that DIR/results.csv already holds is not trained again, so the script can be killed and run again. It
ends with the table and the claims (paired per scan, bootstrapped over scans and seeds).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from nnunet_gmabs.demo.stock import Schedule, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.report.dice import dice_per_class
from nnunet_gmabs.report.statistics import paired_bootstrap

CPU_SECONDS = 0.1  # for the patch: plans whose training step takes about this on two cores, with two patches
BATCH_SIZE = 4  # as in GM-ABS: two labelled and two unlabelled samples
SMALLEST = 6  # labelled scans of the budget that gets several seeds
FIELDS = ("row", "scans", "seed", "scan", "class", "dice", "seconds", "iterations")
STOCK, DENSE = "stock nnU-Net, ignore label", "stock nnU-Net, all scans dense"
ROWS = {
    STOCK: None,
    "Sparse": "nnUNetTrainerSparse",
    "Sparse, half the batch": "nnUNetTrainerSparseHalfBatch",
    "MeanTeacher": "nnUNetTrainerMeanTeacher",
    "GMABS": "nnUNetTrainerGMABS",
    "GMABS, no generalist": "nnUNetTrainerGMABSNoGeneralist",
    "GMABS, no denoising": "nnUNetTrainerGMABSNoDenoise",
    "GMABS, no clipping": "nnUNetTrainerGMABSNoClip",
    "CMEMS": "nnUNetTrainerCMEMS",
}
MAIN_ROWS = list(ROWS)[:4]
CLAIMS = [
    ("Sparse", STOCK),
    ("MeanTeacher", STOCK),
    ("MeanTeacher", "Sparse"),
    ("MeanTeacher", "Sparse, half the batch"),
    ("GMABS", STOCK),
    ("GMABS", "MeanTeacher"),
    ("GMABS", "GMABS, no generalist"),
    ("GMABS", "GMABS, no denoising"),
    ("GMABS", "GMABS, no clipping"),
    ("CMEMS", STOCK),
]
# Three rounds of relabelling of at most so many unlabelled scans: trainings of some hundred iterations have no time
# for more.
RELABEL = {"first": 0.5, "every": 0.1, "until": 0.75, "max_unlabelled": 40}


@dataclass(frozen=True)
class Cell:
    """One training: a row of the table at one budget and seed."""

    row: str
    scans: int  # labelled scans; 0: all, dense
    seed: int

    @property
    def dataset_id(self) -> int:
        """Each budget and seed has a data set of its own."""
        return 600 + self.scans * 10 + self.seed

    @property
    def name(self) -> str:
        """For folders and logs."""
        return f"{self.scans:02d}scans_seed{self.seed}_" + "".join(c for c in self.row if c.isalnum())


class Benchmark:
    """Folders, commands and results of one run of this script."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.source, self.work = args.source.resolve(), args.work.resolve()
        self.schedule, self.test, self.threads = Schedule.of(args.iterations), args.test, args.threads
        self.results = self.work / "results.csv"
        self.lock = threading.Lock()
        self.logs = self.work / "logs"
        for name in ("raw", "preprocessed", "logs"):
            (self.work / name).mkdir(parents=True, exist_ok=True)

    def environment(self, cell: Cell) -> dict[str, str]:
        """Folders, threads and settings of one training's commands."""
        settings = self.logs / f"{cell.name}.yaml"
        schedule = self.schedule
        content = {
            "num_epochs": schedule.epochs,
            "num_iterations_per_epoch": schedule.iterations_per_epoch,
            "num_val_iterations_per_epoch": schedule.val_iterations_per_epoch,
            "seed": cell.seed,
            "relabel": RELABEL,
        }
        settings.write_text(yaml.safe_dump(content))
        environment = {
            **os.environ,
            "nnUNet_raw": str(self.work / "raw"),
            "nnUNet_preprocessed": str(self.work / "preprocessed"),
            "nnUNet_results": str(self.work / "results" / cell.name),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # nnUNetv2_predict takes all cores; its waiting threads must not spin
            "nnUNet_gmabs_config": str(settings),
        }
        return with_trainer_folder(environment, self.work / "trainers")

    def command(self, cell: Cell, name: str, *arguments: str, **variables: str) -> None:
        """Run one of the environment's commands; its output goes to a log file."""
        with open(self.logs / f"{cell.name}.log", "a", encoding="utf-8") as log:
            executable = shutil.which(name, path=str(Path(sys.executable).parent)) or name
            environment = {**self.environment(cell), **variables}
            subprocess.run([executable, *arguments], env=environment, stdout=log, stderr=log, check=True)

    def dataset(self, cell: Cell) -> str:
        """Name of the cell's data set."""
        return f"Dataset{cell.dataset_id:03d}_{self.source.name.split('_', 1)[1]}"

    def classes(self) -> list[int]:
        """Foreground classes of the data set."""
        return [int(v) for v in json.loads((self.source / "dataset.json").read_text())["labels"].values() if v]

    def make_data(self, cell: Cell) -> None:
        """Barely labelled copy and its preparation, unless there; splits: train on all labelled scans."""
        splits = self.work / "preprocessed" / self.dataset(cell) / "splits_final.json"
        if (self.work / "raw" / self.dataset(cell)).is_dir() and splits.is_file():
            return
        shutil.rmtree(self.work / "raw" / self.dataset(cell), ignore_errors=True)
        shutil.rmtree(splits.parent, ignore_errors=True)
        arguments = [str(self.source), self.dataset(cell), "--scans", str(cell.scans), "--seed", str(cell.seed)]
        self.command(cell, "gmabs", "sparsify", *arguments, "--test", str(self.test))
        # nnU-Net's planner refuses nnUNet_n_proc_DA=0
        small = ("--cpu", "--cpu-seconds", str(CPU_SECONDS))
        prepare = ("prepare", "-d", str(cell.dataset_id), "-c", "3d_fullres", *small, "-np", "2")
        self.command(cell, "gmabs", *prepare, nnUNet_n_proc_DA="1")
        plans_file = splits.parent / "nnUNetPlansCPU.json"
        plans = json.loads(plans_file.read_text())
        plans["configurations"]["3d_fullres"]["batch_size"] = BATCH_SIZE
        plans_file.write_text(json.dumps(plans))
        labelled = sorted(
            json.loads((self.work / "raw" / self.dataset(cell) / "gmabs" / "sparsify.json").read_text())["planes_kept"]
        )
        splits.write_text(json.dumps([{"train": labelled, "val": labelled[:1]}]))

    def make_dense_data(self, cell: Cell, like: Cell) -> None:
        """The same training scans with all labels, preprocessed with the same plans."""
        raw, like_raw = (self.work / "raw" / self.dataset(c) for c in (cell, like))
        pre, like_pre = (self.work / "preprocessed" / self.dataset(c) for c in (cell, like))
        if (pre / "splits_final.json").is_file():
            return
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(pre, ignore_errors=True)
        shutil.copytree(like_raw / "imagesTr", raw / "imagesTr")
        shutil.copytree(like_raw / "labelsTr_dense", raw / "labelsTr")
        dataset_json = json.loads((like_raw / "dataset.json").read_text())
        dataset_json["labels"].pop("ignore")
        pre.mkdir(parents=True)
        for folder in (raw, pre):
            (folder / "dataset.json").write_text(json.dumps(dataset_json))
        plans = json.loads((like_pre / "nnUNetPlansCPU.json").read_text())
        plans["dataset_name"] = pre.name
        (pre / "nnUNetPlansCPU.json").write_text(json.dumps(plans))
        shutil.copy(like_pre / "dataset_fingerprint.json", pre)
        arguments = ("-d", str(cell.dataset_id), "-plans_name", "nnUNetPlansCPU", "-c", "3d_fullres", "-np", "2")
        self.command(cell, "nnUNetv2_preprocess", *arguments)
        names = sorted(p.name.removesuffix(dataset_json["file_ending"]) for p in (raw / "labelsTr").iterdir())
        (pre / "splits_final.json").write_text(json.dumps([{"train": names, "val": names[:1]}]))

    def run(self, cell: Cell) -> None:
        """Train, predict the test scans, and add their Dice to the results."""
        trainer = ROWS.get(cell.row) or write_stock_trainer(self.work / "trainers", self.schedule, cell.seed)
        model = ("3d_fullres", "-tr", trainer, "-p", "nnUNetPlansCPU", "-device", "cpu")
        start = time.monotonic()
        self.command(cell, "nnUNetv2_train", str(cell.dataset_id), model[0], "0", *model[1:])
        elapsed = time.monotonic() - start
        images = self.work / "raw" / self.dataset(test_cell(cell)) / "imagesTs"
        predictions = self.work / "results" / cell.name / "predictions"
        where = ("-d", str(cell.dataset_id), "-i", str(images), "-o", str(predictions), "-f", "0", "-c")
        self.command(cell, "nnUNetv2_predict", *where, *model, "-npp", "1", "-nps", "1", "--disable_tta")
        with self.lock, open(self.results, "a", newline="") as f:
            writer = csv.DictWriter(f, FIELDS)
            if f.tell() == 0:
                writer.writeheader()
            for scan, by_label in dice_per_class(predictions, images.parent / "labelsTs", self.classes()).items():
                for label, dice in by_label.items():
                    values = (
                        cell.row,
                        cell.scans,
                        cell.seed,
                        scan,
                        label,
                        dice,
                        round(elapsed),
                        self.schedule.iterations,
                    )
                    writer.writerow(dict(zip(FIELDS, values, strict=True)))
        print(f"{cell.name}: done in {elapsed:.0f} s", flush=True)


def test_cell(cell: Cell) -> Cell:
    """A cell whose data set holds the test scans: the dense one borrows the smallest budget's."""
    return cell if cell.scans else Cell(STOCK, SMALLEST, 0)


def load(results: Path) -> dict[tuple[str, int, int], dict[str, float]]:
    """(row, scans, seed) -> mean Dice of the classes for each test scan."""
    table: dict[tuple[str, int, int], dict[str, list[float]]] = {}
    if results.is_file():
        with open(results, newline="") as f:
            for r in csv.DictReader(f):
                key = (r["row"], int(r["scans"]), int(r["seed"]))
                table.setdefault(key, {}).setdefault(r["scan"], []).append(float(r["dice"]))
    return {key: {scan: float(np.nanmean(d)) for scan, d in v.items()} for key, v in table.items()}


def print_table(results: Path) -> None:
    """Markdown: mean Dice a row and budget (each seed's mean in brackets), then the claims."""
    table = load(results)
    budgets = sorted({scans for _, scans, _ in table if scans})
    print("\n| trainer | " + " | ".join(f"{b} scans x 3 planes" for b in budgets) + " |")
    print("|---|" + "---|" * len(budgets))
    for row in ROWS:
        texts = []
        for budget in budgets:
            seeds = [
                100 * np.mean(list(v.values())) for (r, b, _), v in sorted(table.items()) if (r, b) == (row, budget)
            ]
            texts.append(f"{np.mean(seeds):.1f} ({', '.join(f'{s:.1f}' for s in seeds)})" if seeds else "")
        print(f"| {row} | " + " | ".join(texts) + " |")
    if (DENSE, 0, 0) in table:
        print(f"\n{DENSE}: {100 * np.mean(list(table[DENSE, 0, 0].values())):.1f}")
    print("\n| claim | budget | difference in Dice points, 90 % interval | counts |\n|---|---|---|---|")
    for better, worse in CLAIMS:
        for budget in budgets:
            seeds = [s for (r, b, s) in table if (r, b) == (better, budget) and (worse, budget, s) in table]
            if seeds:
                pairs = [(table[better, budget, s], table[worse, budget, s]) for s in seeds]
                interval = paired_bootstrap(100 * np.array([[a[scan] - b[scan] for scan in a] for a, b in pairs]))
                numbers = f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
                counts = "yes" if interval.counts else "no"
                print(f"| {better} - {worse} | {budget} scans, {len(seeds)} seeds | {numbers} | {counts} |")


def main() -> None:
    """Make the data one after the other, train `jobs` at a time, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="dense data set in nnU-Net's raw format")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything this makes")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--test", type=int, default=40, help="training scans that join the test set")
    parser.add_argument("--seeds", type=int, default=3, help="seeds at the smallest budget; others get one")
    parser.add_argument("--budgets", type=int, nargs="+", default=[SMALLEST, 20], help="labelled scans")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[*ROWS, DENSE],
        metavar="ROW",
        help=f"of {', '.join(ROWS)} (default: the main job's)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    args = parser.parse_args()
    benchmark = Benchmark(args)
    budgets = sorted(args.budgets)
    cells = [
        Cell(row, budget, seed)
        for budget in budgets
        for seed in range(args.seeds if budget == budgets[0] else 1)
        for row in args.rows or MAIN_ROWS
        if row != DENSE
    ]
    dense = Cell(DENSE, 0, 0) if DENSE in (args.rows or [DENSE]) else None
    done = load(benchmark.results).keys()
    waiting = [c for c in [*cells, *([dense] if dense else [])] if (c.row, c.scans, c.seed) not in done]
    for cell in waiting:
        if cell.scans:
            benchmark.make_data(cell)
        else:
            benchmark.make_dense_data(cell, Cell(STOCK, budgets[0], 0))
    with ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(benchmark.run, waiting):
            pass
    print_table(benchmark.results)


if __name__ == "__main__":
    main()
