"""Trainings that are killed at random moments, and what is left of them: the counts in docs/reliability.md.

    python scripts/faults.py [--kills 10] [--seed 0] [--work DIR]

Works on the tiny scans of tests/end_to_end, in a folder of its own. nnUNetTrainerGMABSActive trains 6 epochs, with
rounds of relabelling and of questions, and gets SIGKILL at moments drawn from the whole length of a run, until so many
kills have been made; each time it is continued as by --c. Counted for each expert:

- simulated: trainings that end bit for bit like one that nobody has killed (weights, optimiser, random states, log);
- person: somebody draws whatever has been asked while nothing runs; trainings that end with every drawn plane in
  labelsTr and in the expert's file on the training grid, each round merged once;
- files that are half written, or checkpoints that cannot be read, after a kill;
- two folds trained at the same time that equal those trained one after the other.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "end_to_end"), str(TESTS)]

import raw_data  # noqa: E402
import tiny  # noqa: E402

from nnunet_gmabs.annotation.ledger import read_events  # noqa: E402
from nnunet_gmabs.annotation.raw_folder import RawFolder  # noqa: E402
from nnunet_gmabs.annotation.requests import (  # noqa: E402
    Answer,
    answer_paths,
    existing_rounds,
    read_request,
    round_folder,
    write_answer,
)
from nnunet_gmabs.data.expert import decode, expert_file, read_expert  # noqa: E402
from nnunet_gmabs.report.tables import markdown_table  # noqa: E402

TRAINER = "nnUNetTrainerGMABSActive"
SETTINGS: dict[str, Any] = tiny.MEAN_TEACHER_SETTINGS | {
    "num_epochs": 6,
    "relabel": {"first": 0.3, "first_iterations": 0, "every": 0.3, "until": 0.95},
    "generalist": {"name": "walker"},
    "active": {"scans_per_round": 1, "budget_planes": 6, "first": 0.15, "every": 0.3, "strategy": "foreground-random"},
}


def make_project(folder: Path) -> tiny.Project:
    """The tests' scans, five of seven labelled so that there are folds, and a dense truth for a simulated expert."""
    project = tiny.Project(folder, "Dataset101_Tiny")
    for path in project.variables().values():
        Path(path).mkdir(parents=True)
    raw_data.write_raw(project.raw, 9, (0, 1, 2, 3, 4), raw_data.SPARSE_LABELS)
    raw_data.write_truth(project.raw)
    with tiny.mock.patch.dict(os.environ, project.variables()):
        tiny.prepare(tiny.PrepareOptions(project.dataset, configurations=("3d_fullres",)))
        tiny.write_tiny_plans(project.pre)
        tiny.prepare(tiny.PrepareOptions(project.dataset, configurations=("3d_fullres",), plans=tiny.PLANS))
    return project


def training(project: tiny.Project, folder: Path, expert: str, fold: str = "0") -> tiny.Training:
    """One training in a folder of its own."""
    return tiny.Training(
        project, folder, TRAINER, fold=fold, settings=tiny.merge(SETTINGS, {"active": {"expert": expert}})
    )


def equal(one: tiny.Training, other: tiny.Training) -> bool:
    """Whether two finished trainings agree in every bit; times and folders differ."""
    a, b = tiny.load(one.final), tiny.load(other.final)
    for content in (a, b):
        for request in content["gmabs"]["asking"]["asked"]:
            request["created"] = request["model"] = ""
    return tiny.differences(a, b) == []


def broken_files(folder: Path) -> list[str]:
    """Checkpoints that cannot be read."""
    broken = []
    for path in folder.rglob("checkpoint_*.pth"):
        try:
            tiny.load(path)
        except Exception as error:
            broken.append(f"{path.name}: {error}")
    return broken


def killed(one: tiny.Training, seconds: float, kills: int, rng: np.random.Generator, between: Any) -> Iterator[str]:
    """Kill a training at random moments and continue it until it is finished; what was broken after each kill."""
    started = False
    while not one.final.is_file():
        limit = rng.uniform(0.2, seconds) if kills > 0 else tiny.TIMEOUT
        code = one.in_child(continue_training=started, seconds=limit)
        started = started or any(one.output.glob("checkpoint_*.pth"))
        if code == -signal.SIGKILL:
            kills -= 1
            yield "; ".join(broken_files(one.output))
            between()
        elif code:
            raise SystemExit(f"{one.output}: a continued training ended with code {code}")


def answer_all(raw: RawFolder, drawn: dict[str, set[tuple[int, int]]]) -> None:
    """Somebody draws class 1 all over each plane that is asked for and not answered."""
    ignore_label = raw.ignore_label
    assert ignore_label is not None
    for number in existing_rounds(raw.folder):
        for scan in read_request(raw.folder, number).scans:
            if answer_paths(round_folder(raw.folder, number), scan.identifier, raw.file_ending)[1].is_file():
                continue
            image, properties = raw.read_image(scan.identifier)
            labels = np.full(image.shape[1:], ignore_label, np.uint8)
            planes = tuple(plane.plane for plane in scan.planes)
            for axis, index in planes:
                labels[tuple(index if a == axis else slice(None) for a in range(3))] = 1
            write_answer(raw, number, Answer(scan.identifier, planes, "somebody"), labels, properties)
            drawn.setdefault(scan.identifier, set()).update(planes)


def nothing_lost(project: tiny.Project, drawn: dict[str, set[tuple[int, int]]]) -> bool:
    """Every drawn plane is in labelsTr and in the expert's file, and was merged once."""
    raw = RawFolder(project.raw)
    merges = [(event["scan"], event["round"]) for event in read_events(raw.folder) if event["event"] == "merged"]
    for identifier, planes in drawn.items():
        labels, _ = raw.read_labels(raw.label_path(identifier))
        for axis, index in planes:
            if not (np.take(labels, index, axis) == 1).all():
                return False
        on_grid = decode(read_expert(expert_file(project.pre, "nnUNetPlans_3d_fullres", identifier))[0][0])
        if not (on_grid == 1).any():
            return False
    return len(merges) == len(set(merges)) and bool(drawn)


def main() -> int:
    """Do it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="for each expert")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="empty folder (default: a temporary one)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    rng = np.random.default_rng(args.seed)
    project = make_project(work / "data")

    whole = training(project, work / "whole", "simulated")
    start = time.monotonic()
    assert whole.in_child() == 0
    seconds = time.monotonic() - start
    rows = []
    for expert in ("simulated", "person"):
        kills, trainings, good, broken = 0, 0, 0, 0
        while kills < args.kills:
            trainings += 1
            own = project.copy(work / f"{expert}_{trainings}")
            one = training(own, work / f"{expert}_{trainings}", expert)
            drawn: dict[str, set[tuple[int, int]]] = {}
            raw = RawFolder(own.raw)
            between = (lambda raw=raw, drawn=drawn: answer_all(raw, drawn)) if expert == "person" else (lambda: None)
            for found in killed(one, seconds, min(4, args.kills - kills), rng, between):
                kills, broken = kills + 1, broken + bool(found)
                print(f"{expert}: kill {kills} {found}", flush=True)
            if expert == "person":
                answer_all(raw, drawn)
                longer = replace(one, settings=one.settings | {"num_epochs": SETTINGS["num_epochs"] + 1})
                assert longer.in_child(continue_training=True) == 0
                good += nothing_lost(own, drawn)
            else:
                good += equal(one, whole)
        rows.append([f"SIGKILL at a random moment, {expert} expert", str(kills), str(broken), f"{good} of {trainings}"])

    alone = [training(project, work / "alone", "simulated", fold) for fold in ("1", "2")]
    for one in alone:
        assert one.in_child() == 0
    together = [training(project, work / "together", "simulated", fold) for fold in ("1", "2")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda one: one.in_child(), together)) == [0, 0]
    same = sum(equal(a, b) for a, b in zip(alone, together, strict=True))
    rows.append(["two folds at the same time", "1", "0", f"{same} of 2"])
    print(markdown_table(["fault", "times", "broken files", "trainings that ended as they must"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
