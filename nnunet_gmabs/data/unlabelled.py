"""Scans without a label file: nnU-Net needs one, so it is made, all ignore, and recorded as made by us.

Also what that asks of dataset.json: an ignore label as the highest value, and the right numTraining.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.journal import changing
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data.cases import MADE_LABELS, Case, read_made_labels, reader_writer_class
from nnunet_gmabs.data.verify import Facts
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, move_to_new, sha256, write_json

STAGING = ".gmabs_prepare"  # in labelsTr


@dataclass(frozen=True)
class RawChanges:
    """What must change in a raw data set before nnU-Net can work with it.

    Attributes:
        dataset_json: the new content, None when the old one will do.
        ignore_label: of the new content.
        to_make: scans that need an all-ignore label file.
        to_remove: identifiers of label files that we made for scans that are gone.
    """

    dataset_json: dict[str, Any] | None
    ignore_label: int | None
    to_make: list[Case]
    to_remove: list[str]

    def __bool__(self) -> bool:
        return self.dataset_json is not None or bool(self.to_make or self.to_remove)


def plan_changes(raw: RawFolder, cases: Sequence[Case], facts: dict[str, Facts]) -> RawChanges:
    """What must change in the raw data set; changes nothing."""
    unlabelled = [case for case in cases if case.made or case.label_sha256 is None]
    wanted, ignore_label = dict(raw.dataset_json), raw.ignore_label
    if unlabelled:
        wanted, ignore_label = raw.dataset_json_with_ignore()
    wanted["numTraining"] = len(cases)
    present = {case.identifier for case in cases}
    return RawChanges(
        dataset_json=wanted if wanted != raw.dataset_json else None,
        ignore_label=ignore_label,
        # a file made when the ignore label had another value would be a drawn class today
        to_make=[case for case in unlabelled if not case.made or facts[case.identifier].labels != [ignore_label]],
        to_remove=[i for i in read_made_labels(raw.folder) if i not in present and raw.label_path(i).is_file()],
    )


def with_made_labels(
    cases: Sequence[Case], facts: dict[str, Facts], ignore_label: int | None, made: dict[str, str]
) -> list[Case]:
    """The cases as they are after the changes; facts are brought up to date in place.

    Args:
        cases: as they were.
        facts: of every scan.
        ignore_label: that dataset.json has now.
        made: what apply_changes returned.

    Raises:
        InputError: if a label file is another than the one that was checked or made.
    """
    result = []
    for case in cases:
        expected = made.get(case.identifier, case.label_sha256)
        if not case.label_file.is_file() or sha256(case.label_file) != expected:
            raise _changed_meanwhile(case.label_file)
        if case.identifier in made:
            case = replace(case, label_sha256=expected, made=True)
            facts[case.identifier] = replace(
                facts[case.identifier], label_sha256=expected, labels=[] if ignore_label is None else [ignore_label]
            )
        result.append(case)
    return result


def _changed_meanwhile(path: Path) -> InputError:
    return InputError(f"{path}: somebody saved or removed it while gmabs prepare was running; run it again")


def apply_changes(raw: RawFolder, changes: RawChanges, rollback: Rollback, workers: Workers) -> dict[str, str]:
    """Make the changes, with a backup of the user's dataset.json; rollback remembers every file as it was.

    Returns:
        Hashes of the label files that were made now, by identifier.

    Raises:
        InputError: if a label file has appeared or changed since the changes were planned, or another command is
            changing labels.
    """
    if not changes:
        return {}
    for folder in (raw.folder / MADE_LABELS.parent, raw.folder / "labelsTr"):
        rollback.make_folder(folder)
    with changing(raw.folder):  # `gmabs merge` does not begin meanwhile, nor do we beside it
        return _apply(raw, changes, rollback, workers)


def _apply(raw: RawFolder, changes: RawChanges, rollback: Rollback, workers: Workers) -> dict[str, str]:
    record = raw.folder / MADE_LABELS
    if changes.dataset_json is not None:
        for path in (raw.folder / "dataset.json", raw.dataset_json_backup):
            rollback.remember(path)
        raw.replace_dataset_json(changes.dataset_json)
    all_made = read_made_labels(raw.folder)
    rollback.remember(record)
    made = _make_label_files(raw, changes, rollback, workers)
    for identifier in changes.to_remove:
        path = raw.label_path(identifier)
        if sha256(path) != all_made.pop(identifier):
            raise _changed_meanwhile(path)
        rollback.remember(path)
        path.unlink()
    if made or changes.to_remove:
        write_json(record, dict(sorted((all_made | made).items())))
    return made


def _make_label_files(raw: RawFolder, changes: RawChanges, rollback: Rollback, workers: Workers) -> dict[str, str]:
    """Hashes by identifier. The files are finished in a hidden folder of labelsTr, so on its disk, and then moved."""
    if not changes.to_make:
        return {}
    staging = raw.folder / "labelsTr" / STAGING
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed run; no other is running, for we hold the lock
    staging.mkdir()
    made = {}
    try:
        reader_writer = reader_writer_class(raw, changes.to_make)
        jobs = [_Job(case, changes.ignore_label, reader_writer, staging) for case in changes.to_make]
        for job, digest in workers.map(_make_label_file, jobs, "Making label files of unlabelled scans"):
            _put_in_place(job.staged, digest, job.case, rollback)
            made[job.case.identifier] = digest
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return made


def _put_in_place(staged: Path, digest: str, case: Case, rollback: Rollback) -> None:
    """Move a finished label file to its place, if the scan has no other yet than the one that is to be replaced."""
    target = case.label_file
    if target.is_symlink() and not target.exists():
        raise InputError(f"{target}: is a link to a file that is not there; fetch that file, or remove the link")
    rollback.remember(target, ours=digest)
    if case.label_sha256 is not None:
        if not target.is_file() or sha256(target) != case.label_sha256:
            raise _changed_meanwhile(target)
        os.replace(staged, target)
    else:
        try:
            move_to_new(staged, target)
        except FileExistsError as error:
            raise _changed_meanwhile(target) from error
    beside = staged.with_suffix(".json")  # of .tif files: their spacing
    if beside.exists():
        rollback.remember(target.with_suffix(".json"), ours=sha256(beside))
        os.replace(beside, target.with_suffix(".json"))


@dataclass(frozen=True)
class _Job:
    case: Case
    ignore_label: int | None
    reader_writer: type
    staging: Path

    @property
    def staged(self) -> Path:
        """Where the finished file waits to be moved."""
        return self.staging / self.case.label_file.name


def _make_label_file(job: _Job) -> str:
    """Write an all-ignore label file with the image's geometry where it waits; its hash (in a worker)."""
    reader_writer = job.reader_writer()
    image, properties = reader_writer.read_images((str(job.case.image_files[0]),))
    labels = np.full(image.shape[1:], job.ignore_label, dtype=np.uint16)
    try:
        reader_writer.write_seg(labels, str(job.staged), properties)  # of a .tif file a .json beside it, too
    except RuntimeError as error:  # how SimpleITK reports a full disk
        raise InputError(f"{job.case.label_file}: cannot be written ({error}); is the disk full?") from error
    return sha256(job.staged)
