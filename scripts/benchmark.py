"""A grid of trainings on a densely labelled data set: trainers, labels and seeds, stock nnU-Net included.

    python scripts/benchmark.py scripts/benchmarks/exemplar.yaml --data FOLDER --work DIR [--jobs 2] [--measured FILE]
    python scripts/plot_benchmark.py scripts/benchmarks/exemplar.yaml --work DIR

FOLDER holds the data set that CONFIG names, in nnU-Net's raw format with dense labels. For each entry of `labels` and
each seed, `gmabs sparsify` keeps some planes of some scans and `gmabs prepare` makes the rest ready; every row trains
through nnUNetv2_train for the same number of iterations with the same plans, and predicts the test scans through
nnUNetv2_predict --disable_tta (on a CPU several windows in a pass, see benchmark_predict.py). A seed draws the labelled
scans and seeds the training. Stock nnU-Net, and all trainers that have no use for unlabelled scans, see labelled ones
only. Test scans: those of imagesTs that have a label file in labelsTs, and `test_scans` of the training scans; or, with
`judge_unlabelled`, so many unlabelled training scans, for choices that must not be made on a test set. With
`spacing_mm` the dense data are resampled first, for all rows alike: a coarse grid needs little time.

Each training is one cell, DIR/cells/NAME.json; one that is there is not trained again, so the script can be killed and
started again. DIR/results.csv has all cells: a row for each scan and class (gmabs' scripts/compare.py reads it, too).
With --measured, cells that FILE has, such as docs/measured/exemplar.jsonl, are not trained either, and those that are
trained are added to it, in place of one of the same row, labels and seed; what else is in it stays. With --bfloat16
trainers of ours compute so on a CPU, which is faster on a processor with AVX512-BF16 or AMX and many times slower on
another; a cell says which it was, and is not trained again for that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from benchmark_data import Data
from benchmark_grid import ALL_DENSE, PRECISION, Cell, Grid
from benchmark_measured import add_measured, read_measured, write_csv
from benchmark_scores import postprocessed_scores, scores_of

from nnunet_gmabs import __version__
from nnunet_gmabs.demo.nnunet_commands import find_command
from nnunet_gmabs.demo.stock import BASES, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

BATCHED_PREDICT = Path(__file__).with_name("benchmark_predict.py")


class Commands:
    """Processes that end with this one."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()

    def run(self, command: list[str], environment: dict[str, str], log: Path) -> tuple[float, float]:
        """Run to the end; seconds and peak resident memory in MiB (Linux; of its largest process)."""
        start = time.monotonic()
        with open(log, "a", encoding="utf-8") as f:
            with self._lock:
                process = subprocess.Popen(command, env=environment, stdout=f, stderr=f, start_new_session=True)
                self._running.add(process)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self._running.discard(process)
        if process.returncode:
            raise InputError(f"{' '.join(command)}: ended with code {process.returncode}; see the end of {log}")
        return time.monotonic() - start, usage.ru_maxrss / 1024

    def stop(self, *_: object) -> None:
        """End all of them, and this program."""
        for process in list(self._running):
            os.killpg(process.pid, signal.SIGTERM)
        os._exit(143)


class Benchmark:
    """Folders, commands and results of one run of this script."""

    def __init__(self, grid: Grid, args: argparse.Namespace) -> None:
        self.grid, self.work, self.device, self.threads = grid, args.work.resolve(), args.device, args.threads
        self.source = args.data.resolve() / grid.dataset
        if not (self.source / "dataset.json").is_file():
            raise InputError(f"{self.source}: no dataset.json; --data must be the folder that holds {grid.dataset}")
        if find_spec("monai") is None:
            raise InputError('monai, which judges surfaces, is not installed: pip install ".[benchmark]"')
        self.measured, self.bfloat16 = args.measured, args.bfloat16
        self.data = Data(grid, self.source, self.work, self.command)
        self.classes = [v for v in json.loads((self.source / "dataset.json").read_text())["labels"].values() if v]
        self.commands = Commands()
        for name in ("raw", "preprocessed", "cells", "logs"):
            (self.work / name).mkdir(parents=True, exist_ok=True)

    def command(self, name: str, program: str, *arguments: object, **variables: str) -> tuple[float, float]:
        """Run one of the environment's commands in this benchmark's folders; its output goes to logs/NAME.log."""
        environment = {
            **os.environ,
            "nnUNet_raw": str(self.work / "raw"),
            "nnUNet_preprocessed": str(self.work / "preprocessed"),
            "nnUNet_results": str(self.work / "results" / name),
            "nnUNet_def_n_proc": "1",
            **variables,
        }
        if self.device == "cpu":
            environment = {"nnUNet_n_proc_DA": "0", **environment, "OMP_NUM_THREADS": str(self.threads)}
            environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait must not take the core of the job beside
        environment = with_trainer_folder(environment, self.work / "trainers")
        python = [sys.executable] if program.endswith(".py") else []
        command = [*python, program if python else find_command(program), *map(str, arguments)]
        return self.commands.run(command, environment, self.work / "logs" / f"{name}.log")

    def result_file(self, cell: Cell) -> Path:
        """Where a cell's result lies."""
        return self.work / "cells" / f"{cell.name}.json"

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell was measured already, with the same settings."""
        path = self.result_file(cell)
        if not path.is_file():
            return False
        if not self.grid.is_alike(json.loads(path.read_text()), cell):
            raise InputError(f"{path} was measured with other settings; remove it, or give the row another name")
        return True

    def take_over(self) -> None:
        """Cells of the file of measured ones, which are then not trained here."""
        for result in self.grid.todays(read_measured(self.measured)):
            path = self.result_file(Cell(result["row"], result["labels"], result["seed"]))
            if not path.is_file():
                write_json(path, result)

    def write_results(self) -> None:
        """Make results.csv of all cells, and add them to the file of measured ones."""
        cells = [json.loads(path.read_text()) for path in sorted((self.work / "cells").glob("*.json"))]
        results = self.grid.todays(cells)
        write_csv(self.work / "results.csv", results, self.grid.dataset)
        if self.measured:
            add_measured(self.measured, results)

    def run(self, cell: Cell) -> None:
        """Train, predict, judge; the result's file appears at the end."""
        row, name, dataset = self.grid.rows[cell.row], cell.name, self.data.name(cell.labels, cell.seed)
        trainer, settings = row.trainer, self.grid.settings_of(cell)
        if trainer in BASES:
            trainer = write_stock_trainer(self.work / "trainers", self.grid.schedule, cell.seed, trainer)
        elif self.bfloat16:
            settings[PRECISION] = True
        config = self.work / "logs" / f"{name}.json"
        write_json(config, settings)
        shutil.rmtree(self.work / "results" / name, ignore_errors=True)
        (self.work / "logs" / f"{name}.log").unlink(missing_ok=True)
        model = ["-tr", trainer, "-p", self.data.plans, "-device", self.device]
        train = ["nnUNetv2_train", int(dataset[7:10]), "3d_fullres", 0, *model]
        seconds, peak = self.command(name, *train, nnUNet_gmabs_config=str(config))
        images, truth = self.data.judged(cell)
        output = self.work / "results" / name / "predictions"
        predict = ["-d", int(dataset[7:10]), "-i", images, "-o", output, "-c", "3d_fullres", "-f", 0, *model]
        program = str(BATCHED_PREDICT) if self.device == "cpu" else "nnUNetv2_predict"
        self.command(name, program, *predict, "-npp", 0, "-nps", 0, "--disable_tta")  # 0: no processes of its own
        folder = next((self.work / "results" / name).glob("*/*/fold_0"))
        how = (self.classes, self.grid.nsd_tolerance_mm)
        scores = scores_of(output, truth, *how) | postprocessed_scores(output, truth, *how, self.work / "raw" / dataset)
        used = self.used(cell, folder)
        result = {
            **asdict(cell),
            "trainer": row.trainer,
            "strategy": settings.get("active", {}).get("strategy", "at the start"),
            "settings": settings,
            "iterations": self.grid.schedule.iterations,
            "data": self.grid.data(cell.labels),
            **used,
            "seconds": round(seconds, 1),
            "step_seconds": round(step_seconds(folder, self.grid.schedule.iterations_per_epoch), 4),
            "peak_mib": round(peak),
            "versions": versions(),
            "scores": scores,
        }
        write_json(self.result_file(cell), result)
        mean = np.nanmean([value for scan in scores["dice"].values() for value in scan.values()])
        print(f"{name}: Dice {100 * mean:.1f}, {seconds / 60:.1f} min", flush=True)
        self.write_results()

    def used(self, cell: Cell, folder: Path) -> dict[str, int]:
        """Scans and planes that an expert drew for a training, those that it asked for included."""
        if cell.labels == ALL_DENSE:
            planes = self.work / "raw" / self.data.name(ALL_DENSE, cell.seed) / "labelsTr"
            return {"scans_used": len(list(planes.iterdir())), "planes_used": 0}
        drawn = {scan: len(planes) for scan, planes in self.data.record(cell.labels, cell.seed)["planes_kept"].items()}
        asked = folder / "asked.json"
        for request in json.loads(asked.read_text()) if asked.is_file() else []:
            for scan in request["scans"]:
                drawn[scan["identifier"]] = drawn.get(scan["identifier"], 0) + len(scan["planes"])
        return {"scans_used": len(drawn), "planes_used": sum(drawn.values())}


def step_seconds(folder: Path, iterations: int) -> float:
    """Median over epochs of an epoch's time by its training iterations (its few validation steps included)."""
    log = next(iter(sorted(folder.glob("training_log_*.txt"))))
    times = [float(t) for t in re.findall(r"Epoch time: ([\d.]+) s", log.read_text(encoding="utf-8"))]
    return float(np.median(times)) / iterations


def versions() -> dict[str, str]:
    """Of what was measured."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return {name: version(name) for name in ("nnunetv2", "torch")} | {"nnunet_gmabs": __version__, "commit": commit}


def main() -> int:
    """Make the data one after the other, train `jobs` at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the grid, see scripts/benchmarks")
    parser.add_argument("--data", type=Path, required=True, help="folder with the dense data set")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything this makes")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="cells that are known already; gets the new ones")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training on a CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="trainers of ours on a CPU; stock has no such thing")
    args = parser.parse_args()
    try:
        benchmark = Benchmark(Grid.read(args.config), args)
        if args.measured and args.measured.is_file():
            benchmark.take_over()
        cells = benchmark.grid.cells()
        unknown = set(args.rows or ()) - {cell.row for cell in cells}
        if unknown:
            raise InputError(f"--rows {unknown.pop()}: not a row of {args.config}")
        waiting = [
            c
            for c in cells
            if c.row in (args.rows or [c.row]) and c.seed in (args.seeds or [c.seed]) and not benchmark.is_done(c)
        ]
        for handled in (signal.SIGTERM, signal.SIGINT):
            signal.signal(handled, benchmark.commands.stop)
        print(f"{len(waiting)} of {len(cells)} trainings to do", flush=True)
        for labels, seed in dict.fromkeys((c.labels, c.seed) for c in waiting):
            benchmark.data.make(labels, seed)
        with ThreadPoolExecutor(args.jobs) as pool:
            failed = [error for error in pool.map(lambda cell: outcome(benchmark, cell), waiting) if error]
        benchmark.write_results()
    except InputError as error:
        failed = [error]
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 2 if failed else 0


def outcome(benchmark: Benchmark, cell: Cell) -> Exception | None:
    """Run a cell; a failure is reported at the end, the others go on."""
    try:
        benchmark.run(cell)
    except Exception as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
