"""Whether the scans that a training was validated on are scans that it also learned from."""

from __future__ import annotations

from pathlib import Path

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data.splits import read_folds, splits_file
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.page.trainings import Training


def validated(raw: RawFolder, training: Training) -> list[Path]:
    """Label files of the final validation, sorted; empty before it."""
    return sorted((training.folder / "validation").glob(f"*{raw.file_ending}"))


def also_trained_on(raw: RawFolder, training: Training, pre: Path | None, damaged: Damaged) -> set[str] | None:
    """Scans of the final validation that the training learned from as well; None where nobody knows.

    With fold "all" these are all of them. Of other folds splits_final.json tells, unless the validation had scans
    that are no longer in its list: then the folds were made anew since.

    Args:
        raw: the data set.
        training: one fold.
        pre: the preprocessed data set; None where it is not known.
        damaged: gets a message if the splits cannot be read.
    """
    names = {path.name.removesuffix(raw.file_ending) for path in validated(raw, training)}
    if training.fold == "all":
        return names
    path = None if pre is None else splits_file(pre)
    if path is None or not path.is_file():
        return None
    parts = damaged.read(path, _parts, path, training.fold)
    if parts is None:
        return None
    train, validation = parts
    return names & train if names <= validation else None


def _parts(path: Path, fold: str) -> tuple[set[str], set[str]] | None:
    """Training and validation scans of a fold; None where the file has no such fold."""
    folds = read_folds(path)
    if not fold.isdigit() or int(fold) >= len(folds):
        return None
    return set(folds[int(fold)]["train"]), set(folds[int(fold)]["val"])
