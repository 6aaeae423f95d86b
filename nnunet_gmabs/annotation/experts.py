"""Who answers: an expert simulated by dense labels, at once, or a person, some day.

A simulated expert answers for one training; its answers go into that training's own folder, never into labelsTr,
where folds, seeds and controls would see them. A person's answers lie in the request's folder until they are merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_gmabs.annotation.ledger import read_events
from nnunet_gmabs.annotation.planes import Plane, keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedScan
from nnunet_gmabs.annotation.rounds import write_round
from nnunet_gmabs.annotation.sources import Source, waiting_sources
from nnunet_gmabs.errors import InputError

DENSE_LABELS = "labelsTr_dense"


@dataclass(frozen=True)
class Arrived:
    """An answer.

    Attributes:
        identifier: the scan.
        planes: those drawn.
        label_file: labels on the scan's own grid: all that is drawn in this scan, else the ignore label. For a
            person's answer that is not merged: what this answer draws.
        source: for a person's answer, what annotation.merge takes.
    """

    identifier: str
    planes: tuple[Plane, ...]
    label_file: Path
    source: Source | None = None


class Expert(Protocol):
    """Somebody who can be asked, and may take a while."""

    def ask(self, request: Request, proposals: Mapping[str, np.ndarray] | None = None) -> Request:
        """Ask; returns the request as it was asked. proposals are (X, Y, Z) predictions by scan."""
        ...

    def poll(self) -> list[Arrived]:
        """The answers that have arrived and were not taken up before."""
        ...


class Simulated:
    """Draws every plane that is asked for, from dense labels.

    Args:
        raw: the data set, with labelsTr_dense.
        folder: gets for each scan asked about a label file, and the proposal; belongs to one training. What lies there
            already is kept and added to, so that a training can be continued.

    Raises:
        InputError: if there are no dense labels.
    """

    def __init__(self, raw: RawFolder, folder: Path) -> None:
        if not (raw.folder / DENSE_LABELS).is_dir():
            raise InputError(
                f"{raw.folder / DENSE_LABELS}: no such folder, so no expert can be simulated; make such a data set "
                "with `gmabs sparsify`, or let a person answer"
            )
        self.raw, self.folder = raw, Path(folder)
        self._answers: list[Arrived] = []

    def ask(self, request: Request, proposals: Mapping[str, np.ndarray] | None = None) -> Request:
        """Answer every scan of the request; poll() gives the answers. Proposals are kept beside them."""
        proposals = proposals or {}
        for scan in request.scans:
            path = self.answer(scan.identifier, [plane.plane for plane in scan.planes])
            self._answers.append(Arrived(scan.identifier, tuple(plane.plane for plane in scan.planes), path))
        scans = tuple(self._with_proposal(scan, proposals.get(scan.identifier)) for scan in request.scans)
        return replace(request, scans=scans)

    def poll(self) -> list[Arrived]:
        """The answers since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def answer(self, identifier: str, planes: Sequence[Plane]) -> Path:
        """Draw these planes, beside what is drawn in labelsTr and what was answered before; the label file.

        Raises:
            InputError: if the scan has no dense labels, or the data set no ignore label.
        """
        ignore_label = self.raw.ignore_label
        dense_file = self.raw.label_path(identifier, DENSE_LABELS)
        if ignore_label is None or not dense_file.is_file():
            raise InputError(f"{dense_file}: missing, or dataset.json has no ignore label; nobody can answer")
        dense, properties = self.raw.read_labels(dense_file)
        labels = keep_planes(dense, planes, ignore_label)
        path = self.folder / self.raw.label_path(identifier).name
        for earlier in (self.raw.label_path(identifier), path):
            if earlier.is_file():
                before, _ = self.raw.read_labels(earlier)
                labels = np.where(before != ignore_label, before, labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.raw.write_labels(labels, path, properties)
        return path

    def _with_proposal(self, scan: RequestedScan, proposal: np.ndarray | None) -> RequestedScan:
        """The scan, with what the model said of it before in a file."""
        if proposal is None:
            return scan
        name = f"{scan.identifier}_proposal{self.raw.file_ending}"
        self.raw.write_labels(proposal, self.folder / name, self.raw.read_image(scan.identifier)[1])
        return replace(scan, proposal=name)


class Folder:
    """A person: the request lies in the data set's folder, and is answered there by whatever tool.

    Args:
        raw: the data set.
    """

    def __init__(self, raw: RawFolder) -> None:
        self.raw = raw
        self._seen: set[tuple[int, str, str]] = set()

    def ask(self, request: Request, proposals: Mapping[str, np.ndarray] | None = None) -> Request:
        """Write the round; returns it with its number."""
        return write_round(self.raw, request, proposals)

    def poll(self) -> list[Arrived]:
        """Answers that lie in their rounds and are not merged; each is reported once, and again when it changes.

        What was merged and taken back is left to people: `gmabs unmerge` would be undone within an epoch.
        """
        arrived = []
        merged = {(e["round"], e["scan"], e["hash"]) for e in read_events(self.raw.folder) if e["event"] == "merged"}
        for source in waiting_sources(self.raw):
            key = source.round, source.identifier, source.hash
            if key not in self._seen | merged:
                self._seen.add(key)
                arrived.append(Arrived(source.identifier, source.answer.planes_done, source.path, source))
        return arrived
