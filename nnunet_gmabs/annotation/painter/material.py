"""What the painter shows of a scan, read once and kept while it is open: image, proposal, what is drawn already."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from nnunet_gmabs.annotation.painter.compose import NOTHING
from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.painter.scans import Scan
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedScan, round_folder
from nnunet_gmabs.errors import InputError

KEPT = 2  # scans; two, so that going back is quick
T = TypeVar("T")


class Material:
    """The scans of one round. Requests come on several threads; each file is read by one of them, the others wait.

    Args:
        raw: the data set.
        request: the round.
    """

    def __init__(self, raw: RawFolder, request: Request) -> None:
        self.raw = raw
        self.request = request
        self._reading = threading.RLock()
        self.scan = self._kept(self._read_scan)
        self.proposal = self._kept(self._read_proposal)
        self.known = self._kept(self._read_known)

    def _kept(self, read: Callable[[str], T]) -> Callable[[str], T]:
        cached = lru_cache(maxsize=KEPT)(read)

        def get(identifier: str) -> T:
            with self._reading:
                return cached(identifier)

        return get

    def requested(self, identifier: str) -> RequestedScan:
        """What is asked of one scan.

        Raises:
            RefusedError: if the round does not have it.
        """
        for scan in self.request.scans:
            if scan.identifier == identifier:
                return scan
        raise RefusedError(404, f"{identifier}: not asked for in round {self.request.round}")

    @property
    def _cure(self) -> str:
        number = self.request.round
        return (
            f"was the image exported again after round {number}? Put the old image back, or merge what is finished, "
            f"move {round_folder(self.raw.folder, number)} away and ask again"
        )

    def _read_scan(self, identifier: str) -> Scan:
        self.requested(identifier)
        scan = Scan(self.raw, identifier)
        for plane in self.requested(identifier).planes:
            if plane.index_orig >= scan.shape[plane.axis]:
                raise InputError(
                    f"{identifier}: plane {plane.plane} asked for, but the scan has shape {scan.shape}; {self._cure}"
                )
        return scan

    def _read_proposal(self, identifier: str) -> np.ndarray:
        name = self.requested(identifier).proposal
        if name is None:
            raise RefusedError(404, "there is no proposal for this scan")
        return self._labels(identifier, round_folder(self.raw.folder, self.request.round) / name, undrawn=0)

    def _read_known(self, identifier: str) -> np.ndarray | None:
        """What earlier rounds have drawn, NOTHING elsewhere; None for a scan without labels."""
        path = self.raw.label_path(identifier)
        return self._labels(identifier, path, undrawn=NOTHING) if path.is_file() else None

    def _labels(self, identifier: str, path: Path, undrawn: int) -> np.ndarray:
        """Labels of a file on the scan's grid, uint8, with another value in place of the ignore label."""
        labels, _ = self.raw.read_labels(path)
        if labels.shape != self.scan(identifier).shape:
            raise InputError(f"{path}: shape {labels.shape}, the image has {self.scan(identifier).shape}; {self._cure}")
        return np.where(labels == self.raw.dataset_json_with_ignore()[1], undrawn, labels).astype(np.uint8)
