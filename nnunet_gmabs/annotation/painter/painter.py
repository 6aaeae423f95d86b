"""What one annotator can do in one round: open a scan, paint its planes, look around, finish. No web in here.

Pictures are in the screen's order (see views.py), masks on the disk in the array's.

    requests/round_NNN/drafts/<annotator>/<scan>/axis<a>_<index>/   painting with its history
    requests/round_NNN/drafts/<annotator>/<scan>/time.json          active seconds
    requests/round_NNN/claims/<scan>.json                           who paints what
    requests/round_NNN/answers/<scan>, <scan>.json                  what `gmabs merge` takes
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunet_gmabs.annotation.painter.claims import Claims
from nnunet_gmabs.annotation.painter.compose import NOTHING, Painted, compose, crossing_values
from nnunet_gmabs.annotation.painter.drafts import PlaneDraft, State
from nnunet_gmabs.annotation.painter.material import Material
from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.painter.scans import Scan
from nnunet_gmabs.annotation.planes import Plane, plane_index
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import (
    Answer,
    Request,
    RequestedScan,
    answer_paths,
    is_answer,
    read_answer,
    read_request,
    round_folder,
    write_answer,
)
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

NEIGHBOURS = 5  # planes on each side that can be looked at
Propose = Callable[..., tuple[np.ndarray, float]]


class Painter:
    """One annotator in one round of a data set.

    Args:
        raw: the data set.
        number: the round.
        annotator: name of the person; letters, digits, dot, dash, underscore.
        propose: asks the generalist (see generalist.py); None where there is none.
        why_not: why there is none, for the annotator.

    Raises:
        InputError: if the name or the round is not usable.
    """

    def __init__(
        self, raw: RawFolder, number: int, annotator: str, propose: Propose | None = None, why_not: str = ""
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", annotator):
            raise InputError(f"--annotator {annotator}: use letters, digits, dot, dash and underscore only")
        highest = max(raw.label_values)
        if highest >= NOTHING:
            raise InputError(f"{raw.folder / 'dataset.json'}: label {highest}; the painter knows labels up to 254")
        self.raw, self.annotator, self.propose, self.why_not = raw, annotator, propose, why_not
        self.request: Request = read_request(raw.folder, number)
        self.material = Material(raw, self.request)
        self.folder = round_folder(raw.folder, number)
        self.drafts = self.folder / "drafts" / annotator
        self.claims = Claims(self.folder, annotator)
        self._one_change = threading.Lock()  # requests arrive on several threads

    def requested(self, identifier: str) -> RequestedScan:
        """What is asked of one scan; see Material.requested."""
        return self.material.requested(identifier)

    def scan(self, identifier: str) -> Scan:
        """The scan itself; see Material.scan."""
        return self.material.scan(identifier)

    def state_of(self, identifier: str) -> tuple[str, str, float]:
        """Free, yours, claimed or finished; by whom; for how many seconds more."""
        answer, holder = self.answer(identifier), self.claims.holder(identifier)
        if answer and not (holder and holder[0] == self.annotator):
            return "finished", answer.annotator, 0.0
        if holder is None:
            return "free", "", 0.0
        return ("yours" if holder[0] == self.annotator else "claimed"), *holder

    def answer(self, identifier: str) -> Answer | None:
        """What was said about a finished scan, by whomever; None for one that is not finished."""
        path = answer_paths(self.folder, identifier, self.raw.file_ending)[1]
        return read_answer(path) if is_answer(path) else None

    def draft(self, identifier: str, plane: Plane) -> PlaneDraft:
        """This annotator's painting of a requested plane.

        Raises:
            RefusedError: if the plane is not asked for.
        """
        if plane not in [p.plane for p in self.requested(identifier).planes]:
            raise RefusedError(404, f"{identifier}: plane {plane} is not asked for; it can only be looked at")
        folder = self.drafts / identifier / f"axis{plane[0]}_{plane[1]:04d}"
        return PlaneDraft(folder, self.scan(identifier).plane_shape(plane[0]))

    def states(self, identifier: str) -> list[State]:
        """Where the requested planes stand, in the request's order; does not read the scan."""
        folders = (
            self.drafts / identifier / f"axis{p.axis}_{p.index_orig:04d}" for p in self.requested(identifier).planes
        )
        return [PlaneDraft(folder, (0, 0)).state for folder in folders]

    def open(self, identifier: str) -> None:
        """Claim a scan, or go on holding it; before every change, since a claim may have expired meanwhile.

        Raises:
            RefusedError: if somebody else paints it or has finished it.
        """
        self.requested(identifier)
        state, who, _ = self.state_of(identifier)
        if state == "finished" and who != self.annotator:
            raise RefusedError(409, f"{identifier} was finished by {who}; choose another")
        self.claims.take(identifier)

    def save(self, identifier: str, plane: Plane, picture: np.ndarray, base: int, action: str) -> State:
        """Keep a painting, given as a picture of label values; see PlaneDraft.save."""
        draft = self.draft(identifier, plane)
        unknown = set(np.unique(picture).tolist()) - self.paintable
        if unknown:
            raise RefusedError(422, f"label values {sorted(unknown)} are not in dataset.json")
        with self._one_change:
            self.open(identifier)
            view = self.scan(identifier).views[plane[0]]
            return draft.save(view.from_screen(picture), base, action)

    def step(self, identifier: str, plane: Plane, by: int, base: int) -> State:
        """Undo or redo; see PlaneDraft.step."""
        with self._one_change:
            self.open(identifier)
            return self.draft(identifier, plane).step(by, base)

    def set_done(self, identifier: str, plane: Plane, done: bool, base: int) -> State:
        """Declare a plane painted completely, or take that back; see PlaneDraft.set_done."""
        with self._one_change:
            self.open(identifier)
            return self.draft(identifier, plane).set_done(done, base)

    def picture_of_draft(self, identifier: str, plane: Plane) -> np.ndarray:
        """The current painting for the screen, uint8."""
        return self.scan(identifier).views[plane[0]].to_screen(self.draft(identifier, plane).mask())

    def picture_of_scan(self, identifier: str, plane: Plane, channel: int) -> np.ndarray:
        """Grey values of a requested plane or one of its neighbours, uint16.

        Raises:
            RefusedError: if there is no such plane or channel, or it is farther away.
        """
        scan = self.scan(identifier)
        axis, index = plane
        asked = [p.index_orig for p in self.requested(identifier).planes if p.axis == axis]
        near = any(abs(index - i) <= NEIGHBOURS for i in asked)
        if not (near and 0 <= index < scan.shape[axis] and 0 <= channel < len(scan.channels)):
            raise RefusedError(404, f"{identifier}: no plane {plane} near a requested one, or no channel {channel}")
        return scan.picture(plane, channel)

    def picture_of_crossings(self, identifier: str, plane: Plane) -> np.ndarray:
        """What this annotator's other planes and earlier rounds say on a plane; uint8, NOTHING elsewhere."""
        scan = self.scan(identifier)
        values = crossing_values(plane, scan.shape, self._painted(identifier), self.material.known(identifier))
        return scan.views[plane[0]].to_screen(values)

    def picture_of_proposal(self, identifier: str, plane: Plane) -> np.ndarray:
        """The specialist's prediction on a plane, uint8.

        Raises:
            RefusedError: if there is none.
        """
        return self.scan(identifier).views[plane[0]].to_screen(self.material.proposal(identifier)[plane_index(plane)])

    def add_seconds(self, identifier: str, seconds: float) -> float:
        """Add active time to a scan; returns its sum. A claim is renewed by this sign of life, a finished scan not."""
        self.requested(identifier)
        with self._one_change:
            if self.state_of(identifier)[0] != "finished":
                self.claims.take(identifier)
            total = self.seconds(identifier) + min(max(seconds, 0.0), 120.0)
            (self.drafts / identifier).mkdir(parents=True, exist_ok=True)
            write_json(self.drafts / identifier / "time.json", {"seconds": round(total, 1)})
        return total

    def seconds(self, identifier: str) -> float:
        """Active time spent on a scan by this annotator."""
        try:
            return float(json.loads((self.drafts / identifier / "time.json").read_text(encoding="utf-8"))["seconds"])
        except FileNotFoundError:
            return 0.0

    def disagreements(self, identifier: str) -> int:
        """At how many voxels done planes say different things."""
        return compose(self.scan(identifier).shape, self._painted(identifier), NOTHING)[1]

    def finish(self, identifier: str) -> Path:
        """Write the answer from all done planes and give the scan back; finishing again replaces the answer.

        Raises:
            RefusedError: if no plane is done, or somebody else has answered or holds the scan.
        """
        scan, painted = self.scan(identifier), self._painted(identifier)
        done = tuple(sorted(p.plane for p in painted if p.done))
        if not done:
            raise RefusedError(409, "no plane is marked done yet; mark one (D), or say that nothing is there (N)")
        labels, _ = compose(scan.shape, painted, self.ignore_label)
        accepted = tuple(plane for plane in done if self.draft(identifier, plane).state.proposal_accepted)
        answer = Answer(identifier, done, self.annotator, self.seconds(identifier), "gmabs annotate", accepted)
        with self._one_change:
            self.open(identifier)
            with self.claims.locked():
                self.claims.refuse_if_held_by_another(identifier)
                before = self.answer(identifier)
                if before and before.annotator != self.annotator:
                    raise RefusedError(409, f"{identifier} was finished by {before.annotator}; choose another")
                labels_file, answer_file = answer_paths(self.folder, identifier, self.raw.file_ending)
                answer_file.unlink(missing_ok=True)  # so that an old list of planes never stands beside new labels
                write_answer(self.raw, self.request.round, answer, labels, scan.properties)
            self.claims.give_back(identifier)
        return labels_file

    @property
    def ignore_label(self) -> int:
        """What goes into answers wherever nothing was drawn."""
        return self.raw.dataset_json_with_ignore()[1]

    @property
    def paintable(self) -> set[int]:
        """Values that a painting may hold, 0 included."""
        return self.raw.label_values - {self.ignore_label} | {0}

    def _painted(self, identifier: str) -> list[Painted]:
        """All requested planes as they are painted, the one edited last at the end."""
        drafts = [(p.plane, self.draft(identifier, p.plane)) for p in self.requested(identifier).planes]
        found = [(draft.state, plane, draft) for plane, draft in drafts]
        ordered = sorted(found, key=lambda entry: entry[0].edited)
        return [Painted(plane, draft.mask(state.version), state.done) for state, plane, draft in ordered]
