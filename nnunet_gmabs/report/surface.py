"""How far predicted surfaces are from true ones, with MONAI's metrics (extra `benchmark`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.report.dice import pairs


def surface_scores(
    prediction: np.ndarray, truth: np.ndarray, label: int, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float]:
    """95 % Hausdorff distance and normalised surface Dice of one class.

    HD95 = max(q95 d(S_P, S_T), q95 d(S_T, S_P)); NSD = share of both surfaces within the tolerance of the other.

    Args:
        prediction: integers, (X, Y, Z); an image of one slice (2D data) has contours instead of surfaces.
        truth: integers of the same shape.
        label: the class.
        spacing_mm: of the three axes.
        tolerance_mm: surfaces this near count as agreeing.

    Returns:
        HD95 in mm, at least 0, and NSD in [0, 1]. Where only one of the two has the class, the diagonal of the scan
        and 0; where neither has it, nan and nan. Source: Nikolov et al., arXiv 1809.04430, for NSD.
    """
    kept = [axis for axis, length in enumerate(truth.shape) if length > 1]  # across the others all is surface
    spacing_mm = [spacing_mm[axis] for axis in kept]
    prediction, truth = np.squeeze(prediction), np.squeeze(truth)
    masks = prediction == label, truth == label
    if not masks[0].any() or not masks[1].any():
        if not masks[0].any() and not masks[1].any():
            return float("nan"), float("nan")
        return float(np.linalg.norm(np.multiply(truth.shape, spacing_mm))), 0.0
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    box = tuple(slice(max(at.min() - 1, 0), at.max() + 2) for at in np.nonzero(masks[0] | masks[1]))
    one, other = (torch.from_numpy(mask[box])[None, None] for mask in masks)
    common: dict[str, Any] = {"include_background": True, "spacing": tuple(float(s) for s in spacing_mm)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about an argument that MONAI gives to itself
        hd95 = compute_hausdorff_distance(one, other, percentile=95, **common)
        nsd = compute_surface_dice(one, other, class_thresholds=[float(tolerance_mm)], **common)
    return float(hd95), float(nsd)


def surface_scores_per_class(
    prediction_folder: Path,
    truth_folder: Path,
    labels: Sequence[int],
    tolerance_mm: float,
    file_ending: str = ".nii.gz",
) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """HD95 in mm and normalised surface Dice of every scan of a folder, each as {identifier: {label: value}}.

    Arguments and errors are those of report.dice.dice_per_class; tolerance_mm as for surface_scores.
    """
    hd95: dict[str, dict[int, float]] = {}
    nsd: dict[str, dict[int, float]] = {}
    for pair in pairs(prediction_folder, truth_folder, file_ending):
        scores = {
            label: surface_scores(pair.prediction, pair.truth, label, pair.spacing_mm, tolerance_mm) for label in labels
        }
        hd95[pair.identifier] = {label: distance for label, (distance, _) in scores.items()}
        nsd[pair.identifier] = {label: agreement for label, (_, agreement) in scores.items()}
    return hd95, nsd
