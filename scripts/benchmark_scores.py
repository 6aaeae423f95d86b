"""What a benchmark counts of predictions, with and without the post-processing that the drawn planes tell."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing

from nnunet_gmabs import postprocessing
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.report.dice import dice_per_class
from nnunet_gmabs.report.surface import surface_scores_per_class

Scores = dict[str, dict[str, dict[int, float]]]  # score -> scan -> class -> value
POSTPROCESSED = "_postprocessed"  # behind a score's name


def scores_of(predictions: Path, truth: Path, classes: list[int], tolerance_mm: float) -> Scores:
    """Dice, 95 % Hausdorff distance and surface Dice of each scan and class."""
    hd95_mm, nsd = surface_scores_per_class(predictions, truth, classes, tolerance_mm)
    return {"dice": dice_per_class(predictions, truth, classes), "hd95_mm": hd95_mm, "nsd": nsd}


def postprocessed_scores(
    predictions: Path, truth: Path, classes: list[int], tolerance_mm: float, trained_on: Path
) -> Scores:
    """scores_of after nnU-Net's post-processing, decided from what is drawn in the scans that were trained on.

    Args:
        predictions: folder; postprocessed predictions are written beside it.
        truth: folder with the same scans.
        classes: foreground.
        tolerance_mm: of the surface Dice.
        trained_on: raw data set whose labelsTr decides, sparse or dense.
    """
    raw = RawFolder(trained_on)
    ignore_label = raw.ignore_label or max(raw.label_values) + 1
    files = [path for path in map(raw.label_path, raw.scans()) if path.is_file()]
    pickled = predictions.parent / postprocessing.FILE
    postprocessing.write(pickled, (raw.read_labels(path)[0] for path in files), ignore_label)
    steps = pickle.loads(pickled.read_bytes())
    output = predictions.parent / "postprocessed"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    for path in sorted(predictions.glob(f"*{raw.file_ending}")):
        labels, properties = raw.read_labels(path)
        raw.write_labels(apply_postprocessing(labels, *steps), output / path.name, properties)
    return {name + POSTPROCESSED: values for name, values in scores_of(output, truth, classes, tolerance_mm).items()}
