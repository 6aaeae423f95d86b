"""Who paints which scan: claims that expire, so that two annotators get different scans and nobody blocks one for ever.

A claim is the file claims/<scan>.json in the round's folder. Annotators may sit at different machines that share the
folder: a claim is taken, renewed and given back under a lock on that folder.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import only_one, write_json

LASTS_S = 1800.0  # half an hour after the last sign of life
RENEW_AFTER_S = 60.0
WAIT_FOR_LOCK_S = 5.0


class Claims:
    """The claims of one round, as one annotator sees them.

    Args:
        folder: the round's.
        annotator: who claims.
        clock: seconds since 1970, the same on all machines.
    """

    def __init__(self, folder: Path, annotator: str, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder / "claims"
        self.annotator = annotator
        self.clock = clock

    def holder(self, identifier: str) -> tuple[str, float] | None:
        """Who holds a scan and for how many seconds more; None where it is free."""
        claim = self._read(identifier)
        left = claim[1] - self.clock() if claim else 0
        return (claim[0], left) if claim and left > 0 else None

    def take(self, identifier: str) -> None:
        """Take a scan that is free, or go on holding it.

        Raises:
            RefusedError: if somebody else holds it.
        """
        claim = self._read(identifier)
        if claim and claim[0] == self.annotator and claim[1] - self.clock() > LASTS_S - RENEW_AFTER_S:
            return
        with self.locked():
            self.refuse_if_held_by_another(identifier)
            write_json(self._path(identifier), {"annotator": self.annotator, "expires": self.clock() + LASTS_S})

    def give_back(self, identifier: str) -> None:
        """Free a scan for others; nothing happens where it is not ours."""
        with self.locked():
            claim = self._read(identifier)
            if claim and claim[0] == self.annotator:
                self._path(identifier).unlink(missing_ok=True)

    def refuse_if_held_by_another(self, identifier: str) -> None:
        """Raise RefusedError if somebody else holds the scan now."""
        holder = self.holder(identifier)
        if holder and holder[0] != self.annotator:
            raise RefusedError(
                409, f"{identifier} is being painted by {holder[0]} (for {holder[1] / 60:.0f} min more); choose another"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on all claims of the round; waits for others, who hold it for milliseconds.

        Raises:
            RefusedError: if it does not become free in five seconds.
        """
        self.folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            deadline = time.monotonic() + WAIT_FOR_LOCK_S
            while True:
                try:
                    stack.enter_context(only_one(self.folder / ".lock", "a change of claims"))
                    break
                except InputError as error:
                    if time.monotonic() > deadline:
                        raise RefusedError(409, str(error)) from error
                    time.sleep(0.02)
            yield

    def _read(self, identifier: str) -> tuple[str, float] | None:
        try:
            claim = json.loads(self._path(identifier).read_text(encoding="utf-8"))
            return str(claim["annotator"]), float(claim["expires"])
        except (OSError, ValueError, KeyError, TypeError):  # a broken claim protects nobody
            return None

    def _path(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.json"
