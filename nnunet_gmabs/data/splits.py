"""splits_final.json over labelled scans only, so that stock nnU-Net, too, trains and validates on labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAME = "splits_final.json"
FOLDS = 5
SEED = 12345  # nnU-Net's

Folds = list[dict[str, list[str]]]


def splits_file(pre: Path) -> Path:
    """Where nnU-Net looks for the folds."""
    return Path(pre) / NAME


def make_folds(labelled: Sequence[str]) -> Folds:
    """Five folds as nnU-Net draws them; with fewer than five scans, all for training and validation in each."""
    names = sorted(labelled)
    if len(names) < FOLDS:
        return [{"train": list(names), "val": list(names)} for _ in range(FOLDS)]
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = generate_crossval_split(names, seed=SEED, n_splits=FOLDS)
    return [{part: [str(name) for name in fold[part]] for part in ("train", "val")} for fold in folds]


def update_folds(folds: Folds, labelled: Sequence[str]) -> Folds:
    """Our own folds after labels came in or went away.

    Newly labelled scans join the training part of every fold; validation stays as it was, so that numbers of before
    and after can be compared. Scans that lost their labels go. Where a fold would be left empty, new folds are made.
    """
    known = {name for fold in folds for part in ("train", "val") for name in fold[part]}
    new = sorted(set(labelled) - known)
    updated = [
        {
            "train": [name for name in fold["train"] if name in labelled] + new,
            "val": [name for name in fold["val"] if name in labelled],
        }
        for fold in folds
    ]
    return updated if all(fold["train"] and fold["val"] for fold in updated) else make_folds(labelled)


def read_folds(path: Path) -> Any:
    """The content of a splits file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def agree(first: Path, second: Path) -> bool:
    """Whether two splits files hold the same folds, in whatever order the scans are."""
    sets = [[{part: set(fold[part]) for part in fold} for fold in read_folds(path)] for path in (first, second)]
    return sets[0] == sets[1]
