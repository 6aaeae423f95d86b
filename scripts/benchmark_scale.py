"""Many scans: how long until a training makes its first step, and how long a round of questions takes.

    python scripts/benchmark_scale.py [--scans 500 1000 2000] [--work DIR]

The scans are links to the few tiny ones of tests/end_to_end, raw and preprocessed, three of them labelled, so that what
is measured is what this package does for each scan and not the scan itself. Prints seconds from the command's start to
the first batch (nnUNetTrainerMeanTeacher, imports included), the training's peak memory, and seconds for
`gmabs ask --strategy random` and `cold-start`; and each over the first column, where linear growth is the ratio of
the scans.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "end_to_end"), str(TESTS)]

import raw_data  # noqa: E402
import tiny  # noqa: E402

from nnunet_gmabs.report.tables import markdown_table  # noqa: E402

LABELLED = 3
PART = "nnUNetPlans_3d_fullres"


def multiply(project: tiny.Project, folder: Path, scans: int) -> tiny.Project:
    """The same data set with so many scans: unlabelled ones as links to the last of the few."""
    own = project.copy(folder)
    (folder / "nnUNet_results").mkdir()
    few = len(list((own.raw / "imagesTr").iterdir()))
    last = raw_data.name(few - 1)
    for number in range(few, scans):
        new = raw_data.name(number)
        for place in (own.raw / "imagesTr", own.pre / PART, own.pre / f"{PART}_gmabs", own.pre / "gt_segmentations"):
            for path in place.glob(f"{last}*"):
                if path.is_file():
                    os.link(path, place / path.name.replace(last, new))
    content = json.loads((own.raw / "dataset.json").read_text())
    for place in (own.raw, own.pre):
        (place / "dataset.json").write_text(json.dumps(content | {"numTraining": scans}))
    return own


def first_batch(project: tiny.Project, folder: Path) -> float:
    """Seconds from the command's start to the end of its first step."""
    one = tiny.Training(project, folder, settings={"num_epochs": 1, "num_iterations_per_epoch": 1})
    start = time.monotonic()
    process = tiny.start(*tiny.executable("nnUNetv2_train"), *one.arguments(), environment=one.environment())
    assert process.stdout is not None
    for line in process.stdout:
        if "train_loss" in line:
            break
    else:
        raise SystemExit("the training has made no step")
    seconds = time.monotonic() - start
    tiny.kill(process)
    process.wait()
    return seconds


def ask(project: tiny.Project, strategy: str) -> float:
    """Seconds of one round of questions; the round is removed."""
    start = time.monotonic()
    environment = {**os.environ, **project.variables()}
    tiny.run_command(
        "gmabs", "ask", "-d", project.number, "--scans", "4", "--strategy", strategy, environment=environment
    )
    seconds = time.monotonic() - start
    shutil.rmtree(project.raw / "gmabs" / "requests")
    return seconds


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--work", type=Path, help="empty folder (default: a temporary one)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    (work / "few").mkdir(parents=True)
    project = tiny.make_project(work / "few", "Dataset101_Tiny")
    columns: dict[str, list[float]] = {}
    for scans in args.scans:
        many = multiply(project, work / str(scans), scans)
        figures = {"s to the first step": first_batch(many, work / str(scans) / "training")}
        figures["peak MiB"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        figures |= {f"s to ask, {name}": ask(many, name) for name in ("random", "cold-start")}
        for name, value in figures.items():
            columns.setdefault(name, []).append(value)
        print(f"{scans} scans: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()), flush=True)
    rows = [[name, *(f"{v:.1f} ({v / values[0]:.2f})" for v in values)] for name, values in columns.items()]
    print(markdown_table(["", *(f"{scans} scans" for scans in args.scans)], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
