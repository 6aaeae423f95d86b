"""Checkpoints that a kill, a full disk or another machine cannot spoil."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_gmabs.errors import InputError, first_line
from nnunet_gmabs.files import link_or_copy, remove_unfinished, replace_atomically

NAMES = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
PREVIOUS = "checkpoint_previous.pth"


def plain(value: Any) -> Any:
    """The same value without numpy and pathlib types, so that torch.load(weights_only=True) accepts it."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v) for v in value) if type(value) in (list, tuple) else [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return str(value) if isinstance(value, os.PathLike) else value


def save(checkpoint: dict[str, Any], file: Path) -> None:
    """Write a checkpoint beside its target, flush it, swap it in; an older `latest` stays as `previous`."""

    def write(path: Path) -> None:
        torch.save(plain(checkpoint), path)
        if file.name == NAMES[1] and file.is_file():  # only now: a full disk costs neither of the two
            _keep_as_previous(file)

    replace_atomically(file, write)


def _keep_as_previous(file: Path) -> None:
    temporary = file.with_name(f".{PREVIOUS}")
    temporary.unlink(missing_ok=True)
    try:
        link_or_copy(file, temporary)  # linked, the old content lives on under a second name
        os.replace(temporary, file.with_name(PREVIOUS))
    finally:
        temporary.unlink(missing_ok=True)  # one that stays would take the room of the next checkpoint


def load_newest_readable(file: Path, device: torch.device, warn: Callable[[str], None]) -> tuple[dict[str, Any], Path]:
    """The checkpoint in a file, or the furthest one beside it that can be read.

    Args:
        file: the checkpoint that nnU-Net asks for.
        device: where its tensors go.
        warn: gets one line for each file that cannot be read.

    Raises:
        InputError: no checkpoint in the folder can be read.
    """
    try:
        return _load(file, device), file
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, OSError, ...
        warn(f"{file}: cannot be read ({first_line(error)}); looking for an older checkpoint")
    readable = []
    for other in (file.with_name(name) for name in (*NAMES, PREVIOUS) if name != file.name):
        if other.is_file():
            try:
                readable.append((_load(other, device), other))
            except Exception as error:
                warn(f"{other}: cannot be read ({first_line(error)})")
    if not readable:
        raise InputError(f"{file}: cannot be read, and no other checkpoint beside it can; train anew without --c")
    checkpoint, other = max(readable, key=lambda pair: pair[0]["current_epoch"])
    warn(f"{other}: used instead, epoch {checkpoint['current_epoch']}")
    return checkpoint, other


def _load(file: Path, device: torch.device) -> dict[str, Any]:
    return torch.load(file, map_location=device, weights_only=True)


def clean_up(folder: Path) -> None:
    """Remove what a kill has left of checkpoints that were being written, each as large as a whole one."""
    remove_unfinished(folder, "checkpoint_*.pth")
    (folder / f".{PREVIOUS}").unlink(missing_ok=True)


def set_aside(folder: Path) -> list[str]:
    """Move checkpoints of an earlier run to previous_run/: --c after a kill must not take them for this run's.

    Returns:
        Names of the files moved.
    """
    found = [name for name in (*NAMES, PREVIOUS) if (folder / name).is_file()]
    if found:
        (folder / "previous_run").mkdir(exist_ok=True)
    for name in found:
        os.replace(folder / name, folder / "previous_run" / name)
    return found
