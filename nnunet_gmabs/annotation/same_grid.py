"""Two files lie on the same grid: equal shape, spacing, origin and direction, as nnU-Net's readers tell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.raw_folder import require_one_channel
from nnunet_gmabs.errors import InputError


def check_same_grid(
    path: Path,
    shape: tuple[int, ...],
    geometry: dict[str, Any],
    reference: Path,
    reference_shape: tuple[int, ...],
    reference_geometry: dict[str, Any],
) -> None:
    """Raise InputError unless both files have the same shape, spacing, origin and direction, and three axes."""
    require_one_channel(reference, reference_shape, reference_geometry)
    if tuple(shape[1:]) != tuple(reference_shape[1:]):
        raise InputError(
            f"{path}: has shape {tuple(shape[1:])}, but {reference} has {tuple(reference_shape[1:])}; "
            "export it on the grid of the image"
        )
    spacing = np.asarray(reference_geometry["spacing"], dtype=float)
    tolerances_mm = {"spacing": 1e-3 * spacing.min(), "origin": 1e-2 * spacing.min(), "direction": 1e-3}
    for name, value in geometry_of(geometry).items():
        expected = geometry_of(reference_geometry).get(name)
        if expected is None or np.abs(value - expected).max() > tolerances_mm[name]:
            raise InputError(
                f"{path}: has {name} {_text(value)}, but {reference} has {_text(expected)}; "
                "export it on the grid of the image, or copy the image's header if the voxels do correspond"
            )


def geometry_of(properties: dict[str, Any]) -> dict[str, np.ndarray]:
    """Spacing in mm, and as far as the reader says it, origin in mm and direction (columns of length 1)."""
    geometry = {"spacing": np.asarray(properties["spacing"], dtype=float)}
    if "sitk_stuff" in properties:
        stuff = properties["sitk_stuff"]
        geometry |= {name: np.asarray(stuff[name], dtype=float) for name in ("origin", "direction")}
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]  # voxels lie as the reader turned them, however the file has them
        affine = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), dtype=float)
        geometry["origin"] = affine[:3, 3]
        geometry["direction"] = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return geometry


def _text(value: np.ndarray | None) -> str:
    return "none" if value is None else str(np.round(value, 4).tolist())
