"""Pseudo labels on the training grid: a folder a round, one file a scan, seen by the data workers at the next batch.

<folder>/round_NNN/<case>.b2nd holds int16 (X, Y, Z): a class, or the data set's ignore label where nothing is known.
A round counts for training once its file `complete` is there; it is written last, so that a round that was killed goes
on with the scans that are missing. Readers take the newest complete round.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically

if TYPE_CHECKING:
    import blosc2

FORMAT = 1
COMPLETE = "complete"


def round_folder(folder: Path, number: int) -> Path:
    """Where the files of a round are."""
    return Path(folder, f"round_{number:03d}")


def write_pseudo_labels(
    folder: Path, number: int, identifier: str, labels: np.ndarray, figures: dict[str, Any]
) -> None:
    """Write one scan's labels of a round, replacing the file atomically.

    Args:
        folder: of all rounds.
        number: of the round.
        identifier: of the scan.
        labels: (X, Y, Z) int, the ignore label where nothing is known.
        figures: plain values that belong to the scan, kept with it.

    Raises:
        OSError: the disk is full, or the like.
    """
    import blosc2

    path = round_folder(folder, number) / f"{identifier}.b2nd"
    path.parent.mkdir(parents=True, exist_ok=True)

    cparams = {"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1}
    array = blosc2.asarray(np.ascontiguousarray(labels.astype(np.int16)), cparams=cparams)
    array.schunk.vlmeta["gmabs"] = {"format": FORMAT, "round": number, "figures": figures}
    content = array.to_cframe()  # written by Python, which says so when the disk is full
    replace_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_pseudo_labels(path: Path, shape: Sequence[int] | None = None) -> blosc2.NDArray:
    """The voxels (X, Y, Z) int16 of one file, memory-mapped.

    Args:
        path: of the file.
        shape: that it must have.

    Raises:
        InputError: it cannot be read, is no file of ours, or belongs to another grid.
    """
    import blosc2

    mapping = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: memory maps fail on Windows
    try:
        array = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **mapping)
        valid = array.dtype == np.int16 and array.schunk.vlmeta["gmabs"]["format"] == FORMAT
    except Exception as error:  # blosc2 raises many kinds for a damaged file
        raise InputError(
            f"{path}: cannot be read ({error}); delete it and continue with --c: it is made anew"
        ) from error
    if not valid:
        raise InputError(f"{path}: no pseudo labels of this version; delete the folder of its round")
    if shape is not None and tuple(array.shape) != tuple(shape):
        raise InputError(
            f"{path}: shape {tuple(array.shape)}, but the scan's training grid is {tuple(shape)}; was the data set "
            "preprocessed again? Delete the folder of its round and continue with --c"
        )
    return array


def read_figures(path: Path) -> dict[str, Any]:
    """What write_pseudo_labels was given beside the labels."""
    array = read_pseudo_labels(path)  # must outlive what reads its metadata
    return array.schunk.vlmeta["gmabs"]["figures"]


def complete_round(folder: Path, number: int) -> None:
    """From now on the data workers see this round."""
    round_folder(folder, number).mkdir(parents=True, exist_ok=True)
    replace_atomically(round_folder(folder, number) / COMPLETE, lambda path: path.write_text("", encoding="ascii"))


def is_complete(folder: Path, number: int) -> bool:
    """Whether all scans of a round are labelled."""
    return (round_folder(folder, number) / COMPLETE).is_file()


def finished(folder: Path, number: int) -> list[str]:
    """Identifiers that a round has labelled so far, sorted; files that cannot be read do not count."""
    names = []
    for path in sorted(round_folder(folder, number).glob("[!.]*.b2nd")):
        try:
            read_pseudo_labels(path)
        except InputError:
            continue
        names.append(path.name.removesuffix(".b2nd"))
    return names


def newest_round(folder: Path) -> int | None:
    """Number of the newest complete round; None when there is none."""
    numbers = [int(m[1]) for p in Path(folder).glob("round_*") if (m := re.fullmatch(r"round_(\d+)", p.name))]
    return max((n for n in numbers if is_complete(folder, n)), default=None)


def newest_pseudo_labels(folder: Path, identifier: str, shape: Sequence[int]) -> blosc2.NDArray | None:
    """The scan's labels of the newest complete round; None where that has none of it, or there is no round.

    Asked again when the round disappears between the look and the opening: a newer one has replaced it.
    """
    while (number := newest_round(folder)) is not None:
        path = round_folder(folder, number) / f"{identifier}.b2nd"
        try:
            return read_pseudo_labels(path, shape)
        except InputError:
            if newest_round(folder) == number:
                if path.is_file():
                    raise
                return None
    return None


def remove_round(folder: Path, number: int) -> None:
    """Delete what there is of a round that is not complete."""
    shutil.rmtree(round_folder(folder, number), ignore_errors=True)


def remove_rounds_before(folder: Path, number: int) -> None:
    """Delete older rounds; a file that a data worker has open stays readable for it."""
    _remove_rounds(folder, lambda other: other < number)


def remove_rounds_after(folder: Path, number: int) -> None:
    """Delete newer rounds, as remove_rounds_before the older ones."""
    _remove_rounds(folder, lambda other: other > number)


def _remove_rounds(folder: Path, chosen: Callable[[int], bool]) -> None:
    for path in Path(folder).glob("round_*"):
        match = re.fullmatch(r"round_(\d+)", path.name)
        if match and chosen(int(match[1])):
            (path / COMPLETE).unlink(missing_ok=True)  # first: nobody may take what is left for a round
            shutil.rmtree(path)


def clear_rounds(folder: Path) -> None:
    """Delete all rounds."""
    shutil.rmtree(folder, ignore_errors=True)
