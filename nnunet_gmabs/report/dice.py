"""Dice of predictions against dense labels, for each scan and class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.intact import check_finite_labels, check_whole
from nnunet_gmabs.annotation.same_grid import check_same_grid
from nnunet_gmabs.errors import InputError, reason

# identifier -> label -> Dice; nan where neither prediction nor truth has the class
Dice = dict[str, dict[int, float]]


def dice(prediction: np.ndarray, truth: np.ndarray, label: int, ignore_label: int | None = None) -> float:
    """Overlap of one class, in [0, 1].

    Dice = 2 |P and T| / (|P| + |T|)

    Args:
        prediction: integers of any shape.
        truth: integers of the same shape.
        label: the class; P and T are the voxels with this value.
        ignore_label: voxels with this value in truth do not count.

    Returns:
        nan if both P and T are empty.

    >>> dice(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]), 1) == 2 / 3
    True
    """
    predicted, true = prediction == label, truth == label
    if ignore_label is not None:
        predicted = predicted & (truth != ignore_label)
    total = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / total if total else float("nan")


def dice_per_class(
    prediction_folder: Path,
    truth_folder: Path,
    labels: Sequence[int],
    file_ending: str = ".nii.gz",
    ignore_label: int | None = None,
) -> Dice:
    """Dice of every scan of a folder.

    Args:
        prediction_folder: label files, such as nnUNetv2_predict writes; other files do not matter.
        truth_folder: label files of the same names.
        labels: the classes.
        file_ending: of the label files.
        ignore_label: voxels with this value in the truth do not count.

    Returns:
        {identifier: {label: Dice}}, sorted by identifier.

    Raises:
        InputError: if a file is missing on either side, cannot be read, or the two lie on different grids.
    """
    return {
        pair.identifier: {label: dice(pair.prediction, pair.truth, label, ignore_label) for label in labels}
        for pair in pairs(prediction_folder, truth_folder, file_ending)
    }


@dataclass(frozen=True)
class Pair:
    """Prediction and truth of one scan.

    Attributes:
        identifier: of the scan.
        prediction, truth: integers, (X, Y, Z) in nnU-Net's order.
        spacing_mm: of these axes.
    """

    identifier: str
    prediction: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, ...]


def pairs(prediction_folder: Path, truth_folder: Path, file_ending: str = ".nii.gz") -> Iterator[Pair]:
    """All scans of two folders, sorted by identifier.

    Raises:
        InputError: if a file is missing on either side, cannot be read, or the two lie on different grids.
    """
    for name in _common_files(prediction_folder, truth_folder, file_ending):
        prediction, geometry = _read(prediction_folder / name, file_ending)
        truth, true_geometry = _read(truth_folder / name, file_ending)
        if prediction.shape != truth.shape:
            raise InputError(
                f"{prediction_folder / name}: shape {prediction.shape}, but {truth_folder / name} has {truth.shape}; "
                "do both belong to the same scan?"
            )
        check_same_grid(
            truth_folder / name,
            (1, *truth.shape),
            true_geometry,
            prediction_folder / name,  # which lies on the grid of its image
            (1, *prediction.shape),
            geometry,
        )
        spacing_mm = tuple(float(s) for s in true_geometry["spacing"])
        yield Pair(name[: -len(file_ending)], prediction, truth, spacing_mm)


def scan_means(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """For each scan the mean over the classes that it or its prediction has; nan if there is none."""
    return {identifier: mean(by_label.values()) for identifier, by_label in scores.items()}


def class_means(scores: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """For each class the mean over the scans where it counts; nan if there is none."""
    labels = next(iter(scores.values()), {})
    return {label: mean(by_label[label] for by_label in scores.values()) for label in labels}


def mean(values: Iterable[float]) -> float:
    """The mean without nan; nan if nothing else is there."""
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _common_files(prediction_folder: Path, truth_folder: Path, file_ending: str) -> list[str]:
    """Names of the label files, the same in both folders."""
    for folder in (prediction_folder, truth_folder):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    predicted, true = (
        {path.name for path in folder.iterdir() if path.name.endswith(file_ending)}
        for folder in (prediction_folder, truth_folder)
    )
    if not true:
        raise InputError(f"{truth_folder}: no file ends with {file_ending}; is this the folder of the true labels?")
    for folder, other, missing in (
        (prediction_folder, truth_folder, true - predicted),
        (truth_folder, prediction_folder, predicted - true),
    ):
        if missing:
            raise InputError(
                f"{folder / min(missing)} is missing, {other} has it ({len(missing)} such files in all); "
                "both folders must hold the same scans"
            )
    return sorted(true)


def _read(path: Path, file_ending: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels (X, Y, Z), and what nnU-Net's reader says about their grid."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

    check_whole(path)
    check_finite_labels(path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # to 3D .tif nnU-Net says at length that they are not 2D
            reader = determine_reader_writer_from_file_ending(file_ending, str(path), verbose=False)()
        labels, properties = reader.read_seg(str(path))
    except Exception as error:  # every image library has its own exceptions for a broken file
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    fractions = labels[labels != np.rint(labels)]
    if len(fractions):
        raise InputError(f"{path}: holds {fractions[0]:g}, which is no integer; was it resampled with interpolation?")
    return labels[0], properties
