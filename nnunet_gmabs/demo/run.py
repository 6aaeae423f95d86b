"""The main job on synthetic data, from nothing to a table of Dice: make, sparsify, prepare, train, predict, compare."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.sparsify import SparsifyPlan, sparsify
from nnunet_gmabs.demo.nnunet_commands import CONFIGURATION, Workplace
from nnunet_gmabs.demo.side_by_side import Step, run_side_by_side
from nnunet_gmabs.demo.stock import STOCK, Schedule
from nnunet_gmabs.demo.synthetic import LABELS, write_data_set
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json
from nnunet_gmabs.report.contours import ScanPicture, draw_contours
from nnunet_gmabs.report.dice import Dice, class_means, dice_per_class, mean, scan_means
from nnunet_gmabs.report.scores import Score, paired_differences, scores_of, write_scores
from nnunet_gmabs.report.statistics import paired_bootstrap
from nnunet_gmabs.report.tables import percent, plain_table

DENSE, SPARSE = 901, 902
DENSE_NAME, SPARSE_NAME = "Dataset901_SyntheticDense", "Dataset902_SyntheticSparse"
LABELLED_SCANS = 6
CPU_SECONDS = 0.1
SHOWN_SCANS = 4
CLASSES = {label: name for name, label in LABELS.items() if label}
# What the table says and what -tr gets; the slowest first, so that it does not run alone at the end.
ROWS = {
    "GM-ABS, asking": "nnUNetTrainerGMABSActive",
    "GM-ABS": "nnUNetTrainerGMABS",
    "mean teacher": "nnUNetTrainerMeanTeacher",
    "stock nnU-Net": STOCK,
    "sparse": "nnUNetTrainerSparse",
}
TABLE_ORDER = ("stock nnU-Net", "sparse", "mean teacher", "GM-ABS", "GM-ABS, asking")
# In so short a training: three rounds of relabelling, and two of asking for three planes in two scans each.
SETTINGS: dict[str, dict[str, Any]] = {
    "relabel": {"first": 0.5, "every": 0.1, "until": 0.75},
    "active": {"expert": "simulated", "scans_per_round": 2, "budget_planes": 12, "first": 0.2, "every": 0.2},
}


@dataclass(frozen=True)
class DemoOptions:
    """What `gmabs demo` is asked for.

    Attributes:
        folder: for everything; must not exist, or be empty.
        iterations: training steps of every row.
        seed: of the scans, of which are labelled, and of the trainings.
    """

    folder: Path
    iterations: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"--iterations {self.iterations}: must be at least 1")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must not be negative")
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(f"--folder {self.folder}: is there already; remove it or choose another one")


@dataclass(frozen=True)
class DemoResult:
    """What came out.

    Attributes:
        table: Dice by method, as text.
        claims: a line for each difference to stock nnU-Net, with its interval.
        picture: PNG with contours on held-out slices.
        scores: CSV with all Dice values.
        page: HTML report of the trainings and their Dice.
        place: where everything is.
    """

    table: str
    claims: list[str]
    picture: Path
    scores: Path
    page: Path
    place: Workplace


def run_demo(
    options: DemoOptions,
    say: Callable[[str], None],
    progress: Callable[[Iterable, str], Iterable] = lambda items, title: items,
) -> DemoResult:
    """Run everything; under a quarter of an hour on two cores.

    Args:
        options: where and how long.
        say: gets a line for each thing worth knowing.
        progress: wraps a loop under a title, such as a progress bar.

    Raises:
        InputError: if a command fails; it names the log file.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    slots = min(cores, len(ROWS))
    place = Workplace(options.folder.resolve(), threads=max(1, cores // slots))
    for folder in (place.raw, place.preprocessed, place.results):
        folder.mkdir()

    say("1. Making 24 scans to train on and 8 to test on")
    write_data_set(place.raw / DENSE_NAME, seed=options.seed, progress=lambda scans: progress(scans, "scans"))

    say(f"2. Keeping the labels of 3 planes in {LABELLED_SCANS} scans: gmabs sparsify {DENSE} {SPARSE_NAME}")
    kept = sparsify(place.raw / DENSE_NAME, place.raw / SPARSE_NAME, SparsifyPlan(LABELLED_SCANS, seed=options.seed))
    # One fold that trains on all labelled scans. Stock nnU-Net must not see the unlabelled ones, ours adds them.
    pre = place.preprocessed / SPARSE_NAME
    pre.mkdir()
    labelled = sorted(kept.planes)
    write_json(pre / "splits_final.json", [{"train": labelled, "val": labelled[:1]}])

    say(f"3. Preparing: gmabs prepare -d {SPARSE} -c {CONFIGURATION} --cpu")
    prepare(place, SPARSE, CPU_SECONDS)

    schedule = Schedule.of(options.iterations)
    say(f"4. Training {schedule.iterations} iterations each and predicting the 8 test scans, on the CPU:")
    jobs = [_job(place, method, trainer, schedule, options.seed) for method, trainer in ROWS.items()]
    for step in (step for job in jobs for step in job):
        say(f"   {step.title}: {' '.join(Path(part).name for part in step.command)}")
    seconds = run_side_by_side(jobs, slots, say)

    say("5. Comparing")
    return report(place, seconds, schedule)


def prepare(place: Workplace, dataset: int, cpu_seconds: float) -> None:
    """Run gmabs prepare in the workplace; its own output tells how far it is.

    Raises:
        InputError: if it fails.
    """
    small = ["--cpu", "--cpu-seconds", str(cpu_seconds), "-np", "1"]
    _gmabs(place, "prepare", "-d", str(dataset), "-c", CONFIGURATION, *small)


def _gmabs(place: Workplace, *arguments: str) -> None:
    command = [sys.executable, "-m", "nnunet_gmabs.cli", *arguments]
    if subprocess.run(command, env=place.environment(), check=False).returncode:
        raise InputError(f"{' '.join(command)}: failed, see above")


def report(place: Workplace, seconds: dict[str, float], schedule: Schedule) -> DemoResult:
    """Dice of all methods, as table, file and picture."""
    truth = place.raw / SPARSE_NAME / "labelsTs"
    dice = {method: dice_per_class(_predictions(place, method), truth, list(CLASSES)) for method in TABLE_ORDER}
    file = place.folder / "dice.csv"
    scores: list[Score] = []
    for method in TABLE_ORDER:
        time = round(seconds.get(f"{method}, training", math.nan), 1)
        scores += scores_of(dice[method], method, 0, time, schedule.iterations)
    write_scores(file, scores)
    picture = place.folder / "contours.png"
    raw = RawFolder(place.raw / SPARSE_NAME)
    draw_contours(picture, [_picture(place, raw, name) for name in raw.scans("imagesTs")[:SHOWN_SCANS]], CLASSES)
    page = place.folder / "report.html"
    named = [f"{method}={_predictions(place, method)}" for method in TABLE_ORDER]
    _gmabs(place, "report", "-d", str(SPARSE), "-o", str(page), "--predictions", *named)
    return DemoResult(_table(dice, seconds), _claims(scores), picture, file, page, place)


def _job(place: Workplace, method: str, trainer: str, schedule: Schedule, seed: int) -> list[Step]:
    training, trainer = place.train(SPARSE, trainer, schedule, seed, f"{method}, training", SETTINGS)
    images = place.raw / SPARSE_NAME / "imagesTs"
    return [training, place.predict(SPARSE, trainer, images, _predictions(place, method), f"{method}, predicting")]


def _predictions(place: Workplace, method: str) -> Path:
    return place.folder / "predictions" / method.replace(",", "").replace(" ", "_")


def _table(dice: dict[str, Dice], seconds: dict[str, float]) -> str:
    rows = []
    for method, scores in dice.items():
        values = [*class_means(scores).values(), mean(scan_means(scores).values())]
        minutes = seconds.get(f"{method}, training", math.nan) / 60
        rows.append([method, *map(percent, values), f"{minutes:.1f}"])
    return plain_table(["Dice, %", *CLASSES.values(), "mean", "minutes"], rows)


_VERDICTS = {
    "yes": "counts",
    "one seed": "counts for these two trainings; other seeds may differ",
    "few scans": "too few scans to tell",
    "no": "may be chance",
}


def _claims(scores: list[Score]) -> list[str]:
    lines = []
    for method in TABLE_ORDER[1:]:
        differences, _, _ = paired_differences(scores, method, TABLE_ORDER[0])
        found = paired_bootstrap(100 * differences)
        interval = f"{found.mean:+.1f} points, 90 % interval {found.low:+.1f} to {found.high:+.1f}"
        lines.append(f"{method} - {TABLE_ORDER[0]}: {interval}: {_VERDICTS[found.verdict]}")
    return lines


def _picture(place: Workplace, raw: RawFolder, identifier: str) -> ScanPicture:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(raw.images_of(identifier, "imagesTs")[0]))
    truth, _ = raw.read_labels(raw.label_path(identifier, "labelsTs"))
    predictions = {
        method: raw.read_labels(_predictions(place, method) / f"{identifier}{raw.file_ending}")[0]
        for method in TABLE_ORDER
    }
    return ScanPicture(identifier, sitk.GetArrayFromImage(image), truth, predictions, image.GetSpacing()[::-1])
