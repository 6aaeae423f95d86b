"""Files that may be missing or damaged: the report leaves out what it cannot read, and names it."""

from __future__ import annotations

import csv
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from nnunet_gmabs.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, float]


class Damaged:
    """What could not be read, in the order in which it was found; each message names its file once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def read(self, path: Path, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The value that the given function returns; None, and a message, where it fails for the file's sake."""
        try:
            return read(*args, **kwargs)
        except InputError as error:
            self.add(str(error))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.add(f"{path}: cannot be used ({type(error).__name__}: {error})")
        except (RuntimeError, EOFError, ImportError, pickle.UnpicklingError) as error:  # image and array libraries
            self.add(f"{path}: cannot be read ({error})")
        return None

    def add(self, message: str) -> None:
        """Note a message, unless it is noted."""
        if message not in self.messages:
            self.messages.append(message)


def read_log(path: Path) -> list[Row]:
    """A training's log, one row an epoch; NaN where a cell is empty.

    Raises:
        InputError: if the file is no such table.
    """
    with open(path, newline="", encoding="utf-8") as f:
        try:
            lines = list(csv.reader(f))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no table ({error}); it is written anew by the next epoch") from error
    if not lines or "epoch" not in lines[0]:
        raise InputError(f"{path}: has no column epoch; it is written anew by the next epoch")
    return [_row(path, number, lines[0], cells) for number, cells in enumerate(lines[1:], 2)]


def _row(path: Path, number: int, names: list[str], cells: list[str]) -> Row:
    if len(cells) != len(names):
        raise InputError(f"{path}: line {number} has {len(cells)} values for {len(names)} columns; is it cut off?")
    row: Row = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            row[name] = float(cell) if cell else math.nan
        except ValueError as error:
            raise InputError(f"{path}: line {number}, column {name}: {cell!r} is no number") from error
    if not math.isfinite(row["epoch"]):
        raise InputError(f"{path}: line {number} has no epoch")
    return row


def read_dictionary(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: if it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__} where an object is expected")
    return content
