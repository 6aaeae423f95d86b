"""What one annotator has painted so far on one plane, with every earlier state, so that nothing painted is ever lost.

    <folder>/000003.npz    the plane after the third action, (rows, columns) in the array's order, uint8, 0 = unpainted
    <folder>/state.json    which of them is current; written after the mask, so a kill in between loses nothing

Version 0 is the empty plane and has no file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, write_json

KEPT = 200  # earlier states for undo; a state of a 512 x 512 plane takes some kilobytes
MOVED_ON = "this plane was changed in another window; it is loaded anew"
LOCKED = "this plane is marked done; reopen it (D) to change it"


@dataclass(frozen=True)
class State:
    """Where a plane stands.

    Attributes:
        version: the current one.
        first: the oldest one that undo reaches.
        last: the newest one that redo reaches.
        actions: how each version came about, from its number as text.
        done: painted completely: what is unpainted is background.
        edited: time of the last change, ISO format, UTC; empty if there was none.
    """

    version: int = 0
    first: int = 0
    last: int = 0
    actions: dict[str, str] = field(default_factory=dict)
    done: bool = False
    edited: str = ""

    @property
    def proposal_accepted(self) -> bool:
        """The current painting goes back to the specialist's proposal, and was not wiped since."""
        latest = {action: int(n) for n, action in sorted(self.actions.items(), key=_number) if int(n) <= self.version}
        return latest.get("proposal", 0) > latest.get("not here", 0)


def _number(item: tuple[str, str]) -> int:
    return int(item[0])


class PlaneDraft:
    """One annotator's painting of one plane.

    Args:
        folder: its own folder, made when something is saved.
        shape: of the plane, its axes in the array's order.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.folder = folder
        self.shape = shape

    @property
    def state(self) -> State:
        """Where the plane stands on the disk."""
        try:
            return State(**json.loads((self.folder / "state.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()

    def mask(self, version: int | None = None) -> np.ndarray:
        """The painting, by default the current one; uint8, 0 where nothing is painted.

        Raises:
            InputError: if it is of a plane of another shape.
        """
        version = self.state.version if version is None else version
        if version == 0:
            return np.zeros(self.shape, np.uint8)
        with np.load(self._path(version)) as content:
            mask = content["mask"]
        if mask.shape != self.shape:
            raise InputError(
                f"{self._path(version)}: a painting of {mask.shape[0]} x {mask.shape[1]} pixels, but the plane has "
                f"{self.shape[0]} x {self.shape[1]}; was the image exported again? Put the old image back, or move "
                f"{self.folder} away to paint the plane anew"
            )
        return mask

    def save(self, mask: np.ndarray, base: int, action: str) -> State:
        """Make a mask the current one. What could be redone is forgotten.

        Saving the same mask on the same base again (an answer got lost on its way) changes nothing.

        Args:
            mask: the whole plane.
            base: the version that was painted on.
            action: brush, lasso, proposal, ...

        Raises:
            RefusedError: if base is not the current version, or the plane is done.
        """
        state = self.state
        if state.version == base + 1 and np.array_equal(self.mask(), mask):
            return state
        self._check(state, base)
        if state.done:
            raise RefusedError(409, LOCKED)
        version = base + 1
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_atomically(self._path(version), lambda path: np.savez_compressed(path, mask=mask.astype(np.uint8)))
        actions = {n: a for n, a in state.actions.items() if int(n) <= base} | {str(version): action}
        first = max(state.first, version - KEPT)
        self._write(replace(state, version=version, last=version, first=first, actions=actions))
        for old in range(max(1, state.first), first):  # version `first` itself is still reached by undo
            self._path(old).unlink(missing_ok=True)
        return self.state

    def step(self, by: int, base: int) -> State:
        """Undo (-1) or redo (+1); at the end of the history nothing changes.

        Raises:
            RefusedError: if base is not the current version, or the plane is done.
        """
        state = self.state
        self._check(state, base)
        if state.done:
            raise RefusedError(409, LOCKED)
        version = min(max(state.version + by, state.first), state.last)
        return self._write(replace(state, version=version)) if version != state.version else state

    def set_done(self, done: bool, base: int) -> State:
        """Declare the plane painted completely, or take that back.

        Raises:
            RefusedError: if base is not the current version: something else would be declared than was seen.
        """
        state = self.state
        self._check(state, base)
        return state if state.done == done else self._write(replace(state, done=done))

    def _check(self, state: State, base: int) -> None:
        if state.version != base:
            raise RefusedError(409, MOVED_ON)

    def _write(self, state: State) -> State:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = replace(state, edited=datetime.now(timezone.utc).isoformat())
        write_json(self.folder / "state.json", asdict(state))
        return state

    def _path(self, version: int) -> Path:
        return self.folder / f"{version:06d}.npz"
