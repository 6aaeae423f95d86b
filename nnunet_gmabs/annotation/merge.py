"""Answers into labelsTr: everything is checked first, then all files change together.

What an expert drew earlier is never overwritten silently, and nothing is taken for drawn that was not said to be.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_gmabs.annotation.foreign import READABLE, ForeignLabels, read_foreign
from nnunet_gmabs.annotation.journal import Transaction, changing
from nnunet_gmabs.annotation.ledger import Event, new_event, read_events
from nnunet_gmabs.annotation.planes import plane_mask
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.same_grid import check_same_grid
from nnunet_gmabs.annotation.sources import Source
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256
from nnunet_gmabs.wording import count

KEEP, REPLACE = "keep", "replace"
OnConflict = Literal["keep", "replace"]


@dataclass
class ScanMerge:
    """What one answer is going to change in the labels of its scan.

    Attributes:
        source: the answer.
        labels: (X, Y, Z) as they will be; None where nothing changes.
        properties: for writing them.
        added: voxels that were not drawn before.
        replaced: voxels drawn before that get another value.
        kept: voxels drawn before that keep their value against the answer.
        notes: what was noticed, for people.
    """

    source: Source
    labels: np.ndarray | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    added: int = 0
    replaced: int = 0
    kept: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def identifier(self) -> str:
        """The scan."""
        return self.source.identifier

    def describe(self) -> str:
        """One line for people, and one for each note."""
        changes = f"{count(self.added, 'voxel')} new" if self.labels is not None else "nothing new"
        for number, word in ((self.replaced, "replaced"), (self.kept, "kept as drawn before")):
            changes += f", {number} {word}" if number else ""
        done = len(self.source.answer.planes_done)
        lines = [f"{self.identifier} (round {self.source.round}): {count(done, 'plane')} done, {changes}"]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def plan_merge(
    raw: RawFolder,
    sources: Sequence[Source],
    on_conflict: OnConflict | None = None,
    extra_planes: bool = False,
    progress: Callable[[list[Source]], Iterable[Source]] = iter,
) -> list[ScanMerge]:
    """Check all answers against the labels as they are; changes nothing.

    Args:
        raw: the data set.
        sources: the answers.
        on_conflict: what to do where an answer contradicts a voxel drawn earlier; None refuses, and lists them.
        extra_planes: also take done planes that nobody asked for, and classes painted outside of all done planes.
        progress: wraps the loop over answers, such as a progress bar.

    Raises:
        InputError: if anything is wrong with any of them, or they contradict what was drawn.
    """
    if raw.ignore_label is None:
        raise InputError(
            f'{raw.folder / "dataset.json"}: has no "ignore" label; if 0 in label files also means not drawn, run '
            "`gmabs import`, else `gmabs ask` or `gmabs prepare`"
        )
    ordered = sorted(sources, key=lambda source: (source.identifier, source.round))
    for one, other in zip(ordered, ordered[1:], strict=False):
        if (one.identifier, one.round) == (other.identifier, other.round):
            raise InputError(f"{one.path} and {other.path} answer the same request; name one of them")
    merges: list[ScanMerge] = []
    conflicts: list[str] = []
    state: np.ndarray | None = None
    for source in progress(ordered):
        if not merges or merges[-1].identifier != source.identifier:
            state = labels_now(raw, source.identifier)
        planned, state = _plan_source(raw, source, state, on_conflict, extra_planes, conflicts)
        merges.append(planned)
    if conflicts:
        raise InputError(
            "answers contradict what was drawn earlier:\n  " + "\n  ".join(conflicts) + "\nNothing was changed. "
            "--on-conflict keep keeps what was drawn earlier, --on-conflict replace takes the answers"
        )
    return merges


def merge(
    raw: RawFolder,
    sources: Callable[[], Sequence[Source]],
    on_conflict: OnConflict | None = None,
    extra_planes: bool = False,
    progress: Callable[[list[Source]], Iterable[Source]] = iter,
) -> list[ScanMerge]:
    """Merge answers into labelsTr, all or none; the ledger is told last. Merging the same again changes nothing.

    Args:
        raw: the data set.
        sources: finds the answers; called when nobody else can change them.
        on_conflict: see plan_merge.
        extra_planes: see plan_merge.
        progress: see plan_merge.

    Returns:
        What was done, answer by answer. Where labels is None no label file was written.

    Raises:
        InputError: if anything is wrong with any of them; nothing is changed then.
    """
    with changing(raw.folder):
        merges = plan_merge(raw, sources(), on_conflict, extra_planes, progress)
        _apply(raw, merges)
    return merges


def before_file(raw: RawFolder, number: int, transaction: str, identifier: str) -> Path:
    """Where a scan's label file is kept as it was before a merge."""
    folder = raw.folder / "gmabs" / "rounds" / f"round_{number:03d}" / "before" / transaction
    return folder / f"{identifier}{raw.file_ending}"


def labels_now(raw: RawFolder, identifier: str) -> np.ndarray | None:
    """Labels drawn so far, on the grid of the image; None where there is no label file.

    Raises:
        InputError: if the file lies on another grid.
    """
    path = raw.label_path(identifier)
    if not path.is_file():
        return None
    labels, geometry = raw.read_labels(path)
    image, image_geometry = raw.read_image(identifier)
    # equal shapes are not enough: a program may have turned an axis when it saved the labels
    check_same_grid(
        path, (1, *labels.shape), geometry, raw.images_of(identifier)[0], (1, *image.shape[1:]), image_geometry
    )
    return labels


def _plan_source(
    raw: RawFolder,
    source: Source,
    before: np.ndarray | None,
    on_conflict: OnConflict | None,
    extra_planes: bool,
    conflicts: list[str],
) -> tuple[ScanMerge, np.ndarray]:
    """What one answer changes, and the labels after it; contradictions are added to the list of conflicts."""
    given = _read(raw, source)
    result = ScanMerge(source, properties=given.properties, notes=list(given.notes))
    labels = np.full(given.labels.shape, raw.ignore_label, dtype=np.int32) if before is None else before
    if labels.shape != given.labels.shape:
        raise InputError(
            f"{source.path}: has shape {given.labels.shape}, but {raw.label_path(source.identifier)} has {labels.shape}"
        )
    taken = _taken(raw, source, given.labels, labels, extra_planes, result.notes)
    drawn = labels != raw.ignore_label
    conflict = taken & drawn & (labels != given.labels)
    if conflict.any() and on_conflict is None:
        place = _first(conflict)
        conflicts.append(
            f"{source.path}: {count(int(conflict.sum()), 'voxel')}, the first at {place}: {labels[place]} earlier, "
            f"{given.labels[place]} now"
        )
    if on_conflict == KEEP:
        result.kept = int(conflict.sum())
        taken &= ~drawn
    result.added = int((taken & ~drawn).sum())
    result.replaced = int((taken & conflict).sum())
    after = np.where(taken, given.labels, labels)
    if not np.array_equal(after, labels):
        result.labels = after
    return result, after


def _read(raw: RawFolder, source: Source) -> ForeignLabels:
    if source.path.name.endswith(READABLE):
        return read_foreign(raw, source.identifier, source.path)
    labels, properties = raw.read_labels(source.path)  # a format without a place in space
    shape = raw.read_image(source.identifier)[0].shape[1:]
    if labels.shape != shape:
        raise InputError(f"{source.path}: has shape {labels.shape}, but the image has {shape}")
    return ForeignLabels(labels, properties)


def _taken(
    raw: RawFolder, source: Source, labels: np.ndarray, before: np.ndarray, extra_planes: bool, notes: list[str]
) -> np.ndarray:
    """Which voxels count as drawn in an answer: those of done planes, and extra ones where they are wanted."""
    asked, done = set(source.asked), set(source.answer.planes_done)
    if done - asked and not extra_planes:
        notes.append(f"{source.path.name}: planes {_names(done - asked)} were not asked for and are left out "
                     "(--extra-planes takes them)")  # fmt: skip
        done &= asked
    try:
        taken = plane_mask(labels.shape, done)
    except ValueError as error:
        raise InputError(f"{source.path}: {error}") from error
    undrawn = taken & (labels == raw.ignore_label)
    if undrawn.any():
        planes = [p for p in sorted(done) if (undrawn & plane_mask(labels.shape, [p])).any()]
        raise InputError(
            f"{source.path}: planes {_names(planes)} are said to be done, but "
            f"{count(int(undrawn.sum()), 'voxel')} on them not drawn (value {raw.ignore_label}), "
            f"the first at {_first(undrawn)}"
        )
    if asked - done:
        notes.append(f"{source.path.name}: not done: {_names(asked - done)}")
    painted = (labels > 0) & (labels != raw.ignore_label) & ~taken & (labels != before)
    if extra_planes:
        return taken | painted
    on_asked = painted & plane_mask(labels.shape, asked)
    for where, number in (
        ("planes that are not done", int(on_asked.sum())),
        ("planes that nobody asked for (--extra-planes takes them)", int((painted & ~on_asked).sum())),
    ):
        if number:
            notes.append(f"{source.path.name}: {number} voxels painted on {where} are left out")
    return taken


def _apply(raw: RawFolder, merges: list[ScanMerge]) -> None:
    events = read_events(raw.folder)
    news = [m for m in merges if m.labels is not None or not m.source.is_merged(events)]
    if not news:
        return
    transaction = Transaction(raw.folder)
    files = {m.identifier: raw.label_path(m.identifier) for m in news}  # as they are after the answers staged so far
    try:
        for planned in news:
            files[planned.identifier] = _stage(raw, transaction, planned, files[planned.identifier], events)
        transaction.commit()
    finally:
        transaction.abandon()


def _stage(raw: RawFolder, transaction: Transaction, planned: ScanMerge, current: Path, events: list[Event]) -> Path:
    """Stage what one answer changes; returns the file with the scan's labels after it."""
    source, said = planned.source, planned.source.answer
    own = f"{transaction.id}.{source.round}"
    before = after = sha256(current) if current.is_file() else None
    if planned.labels is not None:
        if before is not None:
            kept = before_file(raw, source.round, own, planned.identifier)
            transaction.write(kept, lambda temporary: shutil.copyfile(current, temporary))
        labels, properties = planned.labels, planned.properties
        target = raw.label_path(planned.identifier)
        current = transaction.write(target, lambda temporary: raw.write_labels(labels, temporary, properties))
        after = sha256(current)
    common: dict[str, Any] = {"scan": planned.identifier, "planes_done": sorted(said.planes_done), "hash": source.hash}
    told = [e["hash"] for e in events if (e["event"], e["round"], e.get("scan")) == _answered(source)]
    if source.hash not in told:
        more = {"seconds": said.seconds, "tool": said.tool, "proposal_accepted": sorted(said.proposal_accepted)}
        transaction.note(new_event("answered", source.round, said.annotator, **common, **more))
    counts: dict[str, Any] = {"added": planned.added, "replaced": planned.replaced, "kept": planned.kept}
    hashes = {"before_sha256": before, "after_sha256": after}
    transaction.note(new_event("merged", source.round, **common, transaction=own, **hashes, **counts))
    return current


def _answered(source: Source) -> tuple[str, int, str]:
    return "answered", source.round, source.identifier


def _names(planes: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{axis}:{index}" for axis, index in sorted(planes))


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
