"""What nnU-Net's preprocessor stored of a scan: its image on the training grid, and its properties."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    import blosc2


class NotPreprocessedError(InputError, FileNotFoundError):
    """A file is missing. An OSError as well: the disk may be away, and a training outlives a failed round."""


def properties(folder: Path, identifier: str) -> dict[str, Any]:
    """Where a scan came from and how it was cropped, as data.grid wants it.

    Args:
        folder: nnUNet_preprocessed/DatasetXXX_Name/<data identifier>.
        identifier: of the scan.

    Raises:
        NotPreprocessedError: the file is not there; so do the other functions here.
    """
    return pickle.loads(_existing(folder / f"{identifier}.pkl").read_bytes())


def image(folder: Path, identifier: str) -> np.ndarray:
    """(channels, X, Y, Z) float32, read into memory."""
    return _open(folder, identifier)[:]


def shape(folder: Path, identifier: str) -> tuple[int, ...]:
    """(X, Y, Z) of the training grid; no voxel is read."""
    return _open(folder, identifier).shape[1:]


def _open(folder: Path, identifier: str) -> blosc2.NDArray:
    import blosc2

    return blosc2.open(urlpath=str(_existing(folder / f"{identifier}.b2nd")), mode="r")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotPreprocessedError(f"{path} is missing: the scan is not preprocessed. Run `gmabs prepare`.")
    return path
