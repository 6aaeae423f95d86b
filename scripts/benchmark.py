"""A grid of trainings on a densely labelled data set: trainers, labels and seeds, stock nnU-Net included.

    python scripts/benchmark.py scripts/benchmarks/main_job.yaml --data FOLDER --work DIR [--jobs 2]
    python scripts/plot_benchmark.py scripts/benchmarks/main_job.yaml --work DIR

FOLDER holds the data set that CONFIG names, in nnU-Net's raw format with dense labels. For each entry of `labels` and
each seed, `gmabs sparsify` keeps some planes of some scans and `gmabs prepare` makes the rest ready; every row trains
through nnUNetv2_train for the same number of iterations with the same plans, and predicts the test scans through
nnUNetv2_predict --disable_tta. A seed draws the labelled scans and seeds the training. Stock nnU-Net, and all trainers
that have no use for unlabelled scans, see labelled ones only. Test scans: imagesTs, and `test_scans` of the training
scans; or, with `judge_unlabelled`, so many unlabelled training scans, for choices that must not be made on a test set.
With `spacing_mm` the dense data are resampled first, for all rows alike: a coarse grid needs little time.

Each training is one cell, DIR/cells/NAME.json; one that is there is not trained again, so the script can be killed and
started again. DIR/results.csv has all cells: a row for each scan and class (gmabs' scripts/compare.py reads it, too).
"""

from __future__ import annotations

import argparse
import csv
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
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nnunet_gmabs import __version__
from nnunet_gmabs.demo.nnunet_commands import STOCK, find_command
from nnunet_gmabs.demo.stock import Schedule, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, write_json
from nnunet_gmabs.report.dice import dice_per_class
from nnunet_gmabs.report.surface import surface_scores_per_class

FIRST_ID = 600
ALL_DENSE = "all scans, dense"


@dataclass(frozen=True)
class Labels:
    """What is drawn: planes of scans.

    Attributes:
        scans: labelled training scans.
        planes: drawn in each; "all": the whole scan.
        seeds: None: the grid's.
    """

    scans: int
    planes: int | str = 3
    seeds: list[int] | None = None


@dataclass(frozen=True)
class Row:
    """A trainer and its settings.

    Attributes:
        trainer: name for -tr, or "stock".
        settings: of our trainers, beside length and seed.
        labels: names of the grid's labels; None: all of them; "dense": all training scans, labelled densely.
        seeds: None: those of the labels.
    """

    trainer: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | str | None = None
    seeds: list[int] | None = None


@dataclass(frozen=True)
class Grid:
    """A benchmark's configuration file."""

    dataset: str
    iterations: int
    seeds: list[int]
    labels: dict[str, Labels]
    rows: dict[str, Row]
    claims: list[list[str]] = field(default_factory=list)
    plans: dict[str, Any] | None = None  # cpu_seconds, batch_size; None: nnU-Net's own plans
    settings: dict[str, Any] = field(default_factory=dict)  # of every row of ours; a row's own win
    test_scans: int = 0
    judge_unlabelled: int | None = None
    spacing_mm: list[float] | None = None  # of the axes in nnU-Net's order; None: as the scans are
    nsd_tolerance_mm: float = 1.0

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read and check the file."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        grid = _build(cls, content, str(path))
        labels = {name: _build(Labels, value, f"{path}: labels: {name}") for name, value in grid.labels.items()}
        rows = {name: _build(Row, value, f"{path}: rows: {name}") for name, value in grid.rows.items()}
        for name, row in rows.items():
            unknown = set(row.labels if isinstance(row.labels, list) else ()) - set(labels)
            if unknown:
                raise InputError(f"{path}: rows: {name}: labels {unknown.pop()} are not among {', '.join(labels)}")
        for claim in grid.claims:
            if len(claim) != 2 or not set(claim) <= set(rows):
                raise InputError(f"{path}: claims: {claim}: must be the names of two rows")
        return cls(**{**grid.__dict__, "labels": labels, "rows": rows})

    def cells(self) -> list[Cell]:
        """All trainings, those of one seed together so that every claim is soon about one whole seed."""
        cells = []
        for row_name, row in self.rows.items():
            if row.labels == "dense":
                cells += [Cell(row_name, ALL_DENSE, seed) for seed in row.seeds or self.seeds]
                continue
            for name in row.labels or self.labels:
                cells += [Cell(row_name, name, s) for s in row.seeds or self.labels[name].seeds or self.seeds]
        order = list(self.labels)
        return sorted(cells, key=lambda c: (order.index(c.labels) if c.labels in order else len(order), c.seed))


def _build(kind: type, content: Any, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(content, dict) or set(content) - known:
        raise InputError(f"{where}: {content!r:.80}: must have keys among {', '.join(sorted(known))}")
    try:
        return kind(**content)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Cell:
    """One training."""

    row: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """For files."""
        return "_".join(re.sub(r"\W+", "-", part) for part in (self.labels, self.row, f"seed{self.seed}"))


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
        self.schedule = Schedule.of(grid.iterations)
        self.plans = "nnUNetPlansCPU" if grid.plans else "nnUNetPlans"
        self.classes = [v for v in json.loads((self.source / "dataset.json").read_text())["labels"].values() if v]
        self.commands = Commands()
        for name in ("raw", "preprocessed", "cells", "logs"):
            (self.work / name).mkdir(parents=True, exist_ok=True)

    # ---- data

    @cached_property
    def dense(self) -> Path:
        """The dense data set, on the grid's spacing."""
        target = self.work / "dense" / self.source.name
        if self.grid.spacing_mm is None:
            return self.source
        if not (target / "dataset.json").is_file():
            for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                for path in sorted((self.source / folder).glob("*")):
                    (target / folder).mkdir(parents=True, exist_ok=True)
                    resample(path, target / folder / path.name, self.grid.spacing_mm, folder.startswith("labels"))
            shutil.copy(self.source / "dataset.json", target)
        return target

    def dataset(self, labels: str, seed: int) -> str:
        """Name of the data set with these labels."""
        number = [*self.grid.labels, ALL_DENSE].index(labels)
        return f"Dataset{FIRST_ID + 10 * number + seed:03d}_{self.source.name.split('_', 1)[1]}"

    def make_data(self, labels: str, seed: int) -> None:
        """Barely labelled copy and its preparation, unless there; splits: train on all labelled scans."""
        what, name = self.grid.labels[labels], self.dataset(labels, seed)
        raw, preprocessed = self.work / "raw" / name, self.work / "preprocessed" / name
        planes = None if what.planes == "all" else what.planes
        if raw.is_dir() and (preprocessed / "splits_final.json").is_file():
            made = self.record(labels, seed)
            if (made["scans"], made["planes"], made["test"]) != (what.scans, planes, self.grid.test_scans):
                raise InputError(f"{raw} was made for other labels; remove it, or choose another --work")
            return
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(preprocessed, ignore_errors=True)
        options = ["--scans", what.scans, "--planes", what.planes, "--seed", seed, "--test", self.grid.test_scans]
        self.command(f"data_{name}", "gmabs", "sparsify", self.dense, name, *options)
        small = ["--cpu", "--cpu-seconds", self.grid.plans["cpu_seconds"]] if self.grid.plans else []
        # nnU-Net's planner refuses nnUNet_n_proc_DA=0
        prepare = ["prepare", "-d", name, "-c", "3d_fullres", *small, "-np", 2]
        self.command(f"data_{name}", "gmabs", *prepare, nnUNet_n_proc_DA="1")
        if self.grid.plans and "batch_size" in self.grid.plans:
            plans = json.loads((preprocessed / f"{self.plans}.json").read_text())
            plans["configurations"]["3d_fullres"]["batch_size"] = self.grid.plans["batch_size"]
            write_json(preprocessed / f"{self.plans}.json", plans)
        labelled = sorted(self.record(labels, seed)["planes_kept"])
        write_json(preprocessed / "splits_final.json", [{"train": labelled, "val": labelled[:1]}])

    def make_dense_data(self, seed: int, like: str) -> None:
        """The same training scans with all labels, preprocessed with the same plans."""
        first, other = self.dataset(like, seed), self.dataset(ALL_DENSE, seed)
        raw, preprocessed = (self.work / folder / other for folder in ("raw", "preprocessed"))
        if (preprocessed / "splits_final.json").is_file():
            return
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(preprocessed, ignore_errors=True)
        shutil.copytree(self.work / "raw" / first / "imagesTr", raw / "imagesTr", copy_function=os.link)
        shutil.copytree(self.work / "raw" / first / "labelsTr_dense", raw / "labelsTr")
        content = json.loads((self.work / "raw" / first / "dataset.json").read_text())
        content["labels"].pop("ignore")
        preprocessed.mkdir(parents=True)
        for folder in (raw, preprocessed):
            write_json(folder / "dataset.json", content)
        model = self.work / "preprocessed" / first
        plans = json.loads((model / f"{self.plans}.json").read_text())
        write_json(preprocessed / f"{self.plans}.json", {**plans, "dataset_name": other})
        shutil.copy(model / "dataset_fingerprint.json", preprocessed)
        options = ["-plans_name", self.plans, "-c", "3d_fullres", "-np", 2]
        self.command(f"data_{other}", "nnUNetv2_preprocess", "-d", int(other[7:10]), *options)
        names = sorted(p.name.removesuffix(content["file_ending"]) for p in (raw / "labelsTr").iterdir())
        write_json(preprocessed / "splits_final.json", [{"train": names, "val": names[:1]}])

    def record(self, labels: str, seed: int) -> dict[str, Any]:
        """What `gmabs sparsify` kept."""
        path = self.work / "raw" / self.dataset(labels, seed) / "gmabs" / "sparsify.json"
        return json.loads(path.read_text())

    def judged(self, cell: Cell) -> tuple[Path, Path]:
        """Folders of the scans on which a cell is judged: images and dense labels."""
        labels = next(iter(self.grid.labels)) if cell.labels == ALL_DENSE else cell.labels
        raw = self.work / "raw" / self.dataset(labels, cell.seed)
        if not self.grid.judge_unlabelled:
            return raw / "imagesTs", raw / "labelsTs"
        images, truth = raw / "judged" / "images", raw / "judged" / "labels"
        if not truth.is_dir():
            ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
            dense = {p.name.removesuffix(ending) for p in (raw / "labelsTr_dense").iterdir()}
            unlabelled = sorted(dense - set(self.record(labels, cell.seed)["planes_kept"]))
            images.mkdir(parents=True, exist_ok=True)
            truth.mkdir()
            for scan in np.random.default_rng(0).permutation(unlabelled)[: self.grid.judge_unlabelled]:
                os.link(raw / "labelsTr_dense" / f"{scan}{ending}", truth / f"{scan}{ending}")
                for path in (raw / "imagesTr").glob(f"{scan}_????{ending}"):
                    os.link(path, images / path.name)
        return images, truth

    # ---- trainings

    def settings(self, cell: Cell) -> dict[str, Any]:
        """All settings of a training of ours."""
        settings: dict[str, Any] = {
            "num_epochs": self.schedule.epochs,
            "num_iterations_per_epoch": self.schedule.iterations_per_epoch,
            "num_val_iterations_per_epoch": self.schedule.val_iterations_per_epoch,
            "save_every": self.schedule.epochs,
            "seed": cell.seed,
        }
        for more in (self.grid.settings, self.grid.rows[cell.row].settings):
            for key, value in more.items():
                settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        return settings

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
        command = [find_command(program), *map(str, arguments)]
        return self.commands.run(command, environment, self.work / "logs" / f"{name}.log")

    def result_file(self, cell: Cell) -> Path:
        """Where a cell's result lies."""
        return self.work / "cells" / f"{cell.name}.json"

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell was measured already, with the same settings."""
        path = self.result_file(cell)
        if not path.is_file():
            return False
        result = json.loads(path.read_text())
        settings = {} if self.grid.rows[cell.row].trainer == STOCK else self.settings(cell)
        if (result["settings"], result["iterations"]) != (settings, self.schedule.iterations):
            raise InputError(f"{path} was measured with other settings; remove it, or give the row another name")
        return True

    def run(self, cell: Cell) -> None:
        """Train, predict, judge; the result's file appears at the end."""
        row, name, dataset = self.grid.rows[cell.row], cell.name, self.dataset(cell.labels, cell.seed)
        settings: dict[str, Any] = {}
        if row.trainer == STOCK:
            trainer = write_stock_trainer(self.work / "trainers", self.schedule, cell.seed)
        else:
            trainer, settings = row.trainer, self.settings(cell)
        config = self.work / "logs" / f"{name}.json"
        write_json(config, settings)
        shutil.rmtree(self.work / "results" / name, ignore_errors=True)
        (self.work / "logs" / f"{name}.log").unlink(missing_ok=True)
        model = ["-tr", trainer, "-p", self.plans, "-device", self.device]
        train = ["nnUNetv2_train", int(dataset[7:10]), "3d_fullres", 0, *model]
        seconds, peak = self.command(name, *train, nnUNet_gmabs_config=str(config))
        images, truth = self.judged(cell)
        output = self.work / "results" / name / "predictions"
        predict = ["-d", int(dataset[7:10]), "-i", images, "-o", output, "-c", "3d_fullres", "-f", 0, *model]
        self.command(name, "nnUNetv2_predict", *predict, "-npp", 1, "-nps", 1, "--disable_tta")
        folder = next((self.work / "results" / name).glob("*/*/fold_0"))
        scores = {"dice": dice_per_class(output, truth, self.classes)}
        scores["hd95_mm"], scores["nsd"] = surface_scores_per_class(
            output, truth, self.classes, self.grid.nsd_tolerance_mm
        )
        used = self.used(cell, folder)
        result = {
            **asdict(cell),
            "trainer": row.trainer,
            "strategy": settings.get("active", {}).get("strategy", "at the start"),
            "settings": settings,
            "iterations": self.schedule.iterations,
            **used,
            "seconds": round(seconds, 1),
            "step_seconds": round(step_seconds(folder, self.schedule.iterations_per_epoch), 4),
            "peak_mib": round(peak),
            "versions": versions(),
            "scores": scores,
        }
        write_json(self.result_file(cell), result)
        mean = np.nanmean([value for scan in scores["dice"].values() for value in scan.values()])
        print(f"{name}: Dice {100 * mean:.1f}, {seconds / 60:.1f} min", flush=True)
        self.write_csv()

    def used(self, cell: Cell, folder: Path) -> dict[str, int]:
        """Scans and planes that an expert drew for a training, those that it asked for included."""
        if cell.labels == ALL_DENSE:
            planes = self.work / "raw" / self.dataset(ALL_DENSE, cell.seed) / "labelsTr"
            return {"scans_used": len(list(planes.iterdir())), "planes_used": 0}
        drawn = {scan: len(planes) for scan, planes in self.record(cell.labels, cell.seed)["planes_kept"].items()}
        asked = folder / "asked.json"
        for request in json.loads(asked.read_text()) if asked.is_file() else []:
            for scan in request["scans"]:
                drawn[scan["identifier"]] = drawn.get(scan["identifier"], 0) + len(scan["planes"])
        return {"scans_used": len(drawn), "planes_used": sum(drawn.values())}

    def write_csv(self) -> None:
        """Make results.csv from all cells."""
        results = [json.loads(path.read_text()) for path in sorted((self.work / "cells").glob("*.json"))]

        def write(path: Path) -> None:
            with open(path, "w", newline="", encoding="utf-8") as f:
                writer = csv.DictWriter(f, COLUMNS)
                writer.writeheader()
                for result in results:
                    common = {key: result[key] for key in COLUMNS if key in result} | result["versions"]
                    common |= {"dataset": self.grid.dataset, "cell": f"{result['row']}, {result['labels']}"}
                    for scan, by_class in result["scores"]["dice"].items():
                        for label in by_class:
                            values = {key: by_scan[scan][label] for key, by_scan in result["scores"].items()}
                            writer.writerow({**common, "scan": scan, "class": label, **values})

        replace_atomically(self.work / "results.csv", write)


def resample(source: Path, target: Path, spacing_mm: list[float], is_labels: bool) -> None:
    """An image or label file on another spacing, with nnU-Net's own interpolation; the outer edges stay."""
    import SimpleITK as sitk
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    old = sitk.ReadImage(str(source))
    array, spacing = sitk.GetArrayFromImage(old), np.array(old.GetSpacing()[::-1])
    shape = np.maximum(np.round(np.multiply(array.shape, spacing) / spacing_mm), 1).astype(int)
    order = 1 if is_labels else 3
    data = resample_data_or_seg_to_shape(array[None].astype(float), shape, spacing, spacing_mm, is_labels, order)[0]
    new = sitk.GetImageFromArray(data.astype(array.dtype if is_labels else np.float32))
    exact = spacing * array.shape / shape
    moved = np.array(old.GetDirection()).reshape(3, 3) @ (0.5 * (exact - spacing)[::-1])
    new.SetSpacing(exact[::-1].tolist())
    new.SetDirection(old.GetDirection())
    new.SetOrigin((np.array(old.GetOrigin()) + moved).tolist())
    sitk.WriteImage(new, str(target), True)


COLUMNS = [
    *("dataset", "cell", "row", "labels", "strategy", "trainer", "seed", "iterations", "scan", "class"),
    *("dice", "hd95_mm", "nsd", "scans_used", "planes_used", "seconds", "step_seconds", "peak_mib"),
    *("nnunetv2", "torch", "nnunet_gmabs", "commit"),
]


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
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training on a CPU")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    try:
        benchmark = Benchmark(Grid.read(args.config), args)
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
        first = next(iter(benchmark.grid.labels))
        for labels, seed in dict.fromkeys((c.labels, c.seed) for c in waiting):
            benchmark.make_data(first if labels == ALL_DENSE else labels, seed)
            if labels == ALL_DENSE:
                benchmark.make_dense_data(seed, first)
        with ThreadPoolExecutor(args.jobs) as pool:
            failed = [error for error in pool.map(lambda cell: outcome(benchmark, cell), waiting) if error]
        benchmark.write_csv()
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
