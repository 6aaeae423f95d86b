"""Files that are whole: SimpleITK fills up what a truncated NIfTI file lacks, and reads NaN in it as 0."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.errors import InputError


def check_whole(path: Path) -> None:
    """Raise InputError if a compressed or NIfTI file is truncated or damaged; other readers notice it themselves."""
    if path.suffix == ".gz":
        _check_gzip(path)
    elif path.suffix == ".nii":
        _check_length(path)


def check_finite_labels(path: Path) -> None:
    """Raise InputError if a NIfTI file of labels holds NaN or infinite values."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return
    import nibabel

    try:
        image: Any = nibabel.load(path)
        wrong = image.get_data_dtype().kind == "f" and not np.isfinite(np.asanyarray(image.dataobj)).all()
    except Exception:  # the reader that comes next says what is wrong with it
        return
    if wrong:
        raise InputError(f"{path}: holds NaN or infinite values; labels must be integers")


def _check_gzip(path: Path) -> None:
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass  # reading to the end checks length and checksum
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); copy or export it again") from error


def _check_length(path: Path) -> None:
    import nibabel

    try:
        image: Any = nibabel.load(path)
        voxels = image.dataobj
        needed = voxels.offset + int(np.prod(voxels.shape, dtype=np.int64)) * voxels.dtype.itemsize
    except Exception:  # the reader that comes next says what is wrong with it
        return
    if (found := path.stat().st_size) < needed:
        raise InputError(f"{path}: truncated or damaged ({found} of {needed} bytes); copy or export it again")
