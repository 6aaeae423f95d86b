"""Measured trainings of a benchmark: as a table of scores, and as one small file that goes from machine to machine.

Such a file, docs/measured/GRID.jsonl, has a line for each training: what was trained on what, how long, by which
versions, and all scores of all scans. Tables and claims follow from it without a training, and a benchmark that is
given it trains only what is missing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark_scores import POSTPROCESSED

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically

Result = dict[str, Any]  # one training: scalars, settings, versions, and scores: name -> scan -> class -> value
SCORES = ["dice", "hd95_mm", "nsd"]
POSTPROCESSED_SCORES = [name + POSTPROCESSED for name in SCORES]
COLUMNS = [
    *("dataset", "cell", "row", "labels", "strategy", "trainer", "seed", "iterations", "scan", "class"),
    *(*SCORES, *POSTPROCESSED_SCORES, "scans_used", "planes_used", "seconds", "step_seconds", "peak_mib"),
    *("nnunetv2", "torch", "nnunet_gmabs", "commit"),
]
DIGITS = 4  # of a score in the file


def write_csv(path: Path, results: Iterable[Result], dataset: str) -> None:
    """A row for each training, scan and class."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, COLUMNS)
            writer.writeheader()
            for result in results:
                common = {key: result[key] for key in COLUMNS if key in result} | result["versions"]
                common |= {"dataset": dataset, "cell": f"{result['row']}, {result['labels']}"}
                for scan, by_class in result["scores"]["dice"].items():
                    for label in by_class:
                        values = {key: by_scan[scan][label] for key, by_scan in result["scores"].items()}
                        writer.writerow({**common, "scan": scan, "class": label, **values})

    replace_atomically(path, write)


def pack(result: Result) -> str:
    """One line of JSON: each score as a list over scans for each class, rounded; what is no number as null."""
    scores = result["scores"]
    scans = sorted(scores["dice"])
    classes = [str(label) for label in scores["dice"][scans[0]]]

    def values(by_scan: dict[str, dict], label: str) -> list[float | None]:
        of_scans = [{str(k): v for k, v in by_scan[scan].items()}[label] for scan in scans]
        return [None if v is None or not math.isfinite(v) else round(v, DIGITS) for v in of_scans]

    tables = {name: {label: values(by_scan, label) for label in classes} for name, by_scan in scores.items()}
    return json.dumps({**result, "scans": scans, "scores": tables}, separators=(",", ":"))


def unpack(line: str) -> Result:
    """Counterpart of pack(), but for the digits."""
    packed = json.loads(line)
    scans = packed.pop("scans")
    scores = {
        name: {
            scan: {label: math.nan if of[i] is None else of[i] for label, of in by_class.items()}
            for i, scan in enumerate(scans)
        }
        for name, by_class in packed["scores"].items()
    }
    return {**packed, "scores": scores}


def read_measured(path: Path) -> list[Result]:
    """All trainings of such a file.

    Raises:
        InputError: if it is not there, or a line is not of this kind.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; scripts/benchmark.py --measured writes it")
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            results.append(unpack(line))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"{path}, line {number}: not a measured training ({error!r}); remove this line") from error
    return results


def write_measured(path: Path, results: Iterable[Result]) -> None:
    """The file, sorted by labels, row and seed; replaced atomically."""
    ordered = sorted(results, key=lambda r: (r["labels"], r["row"], r["seed"]))
    text = "".join(pack(result) + "\n" for result in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def add_measured(path: Path, results: Iterable[Result]) -> None:
    """Add trainings to the file, each in place of the one of the same row, labels and seed; all others stay."""

    def by_cell(of: Iterable[Result]) -> dict[tuple, Result]:
        return {(r["row"], r["labels"], r["seed"]): r for r in of}

    known = read_measured(path) if path.is_file() else []
    write_measured(path, (by_cell(known) | by_cell(results)).values())
