"""Scans without a label file: nnU-Net needs one, so it is made, all ignore, and recorded as made by us.

Also what that asks of dataset.json: an ignore label as the highest value, and the right numTraining.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data.cases import MADE_LABELS, Case, read_made_labels, reader_writer_class
from nnunet_gmabs.data.verify import Facts
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, replace_atomically, sha256, write_json

BACKUP = Path("gmabs") / "dataset.json.backup"


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


def with_made_labels(cases: Sequence[Case], facts: dict[str, Facts], ignore_label: int | None) -> list[Case]:
    """The cases as they are after the changes; facts are brought up to date in place."""
    result = []
    for case in cases:
        digest = sha256(case.label_file)
        if digest != case.label_sha256:
            case = replace(case, label_sha256=digest, made=True)
            facts[case.identifier] = replace(
                facts[case.identifier], label_sha256=digest, labels=[] if ignore_label is None else [ignore_label]
            )
        result.append(case)
    return result


def apply_changes(raw: RawFolder, changes: RawChanges, rollback: Rollback, workers: Workers) -> None:
    """Make the changes, with a backup of the user's dataset.json; rollback remembers every file as it was."""
    if not changes:
        return
    dataset_file, backup, record = (raw.folder / name for name in ("dataset.json", BACKUP, MADE_LABELS))
    rollback.make_folder(backup.parent)
    rollback.make_folder(raw.folder / "labelsTr")
    if changes.dataset_json is not None:
        for path in (dataset_file, backup):
            rollback.remember(path)
        if not backup.exists():  # the user's own first version is worth keeping, ours is not
            original = dataset_file.read_bytes()
            replace_atomically(backup, lambda temporary: temporary.write_bytes(original))
        write_json(dataset_file, changes.dataset_json)
    made = read_made_labels(raw.folder)
    rollback.remember(record)
    jobs = []
    reader_writer = reader_writer_class(raw, changes.to_make) if changes.to_make else object
    for case in changes.to_make:
        for path in (case.label_file, case.label_file.with_suffix(".json")):
            rollback.remember(path)
        jobs.append(_Job(case, changes.ignore_label, reader_writer))
    for job, digest in workers.map(_make_label_file, jobs, "Making label files of unlabelled scans"):
        made[job.case.identifier] = digest
    for identifier in changes.to_remove:
        rollback.remember(raw.label_path(identifier))
        raw.label_path(identifier).unlink()
        del made[identifier]
    if jobs or changes.to_remove:
        write_json(record, dict(sorted(made.items())))


@dataclass(frozen=True)
class _Job:
    case: Case
    ignore_label: int | None
    reader_writer: type


def _make_label_file(job: _Job) -> str:
    """Write an all-ignore label file with the image's geometry; its hash (in a worker)."""
    reader_writer = job.reader_writer()
    image, properties = reader_writer.read_images((str(job.case.image_files[0]),))
    labels = np.full(image.shape[1:], job.ignore_label, dtype=np.uint16)
    label_file = job.case.label_file
    try:
        # in a folder of its own, because the writer of .tif files writes a .json beside
        with tempfile.TemporaryDirectory(dir=label_file.parent.parent / MADE_LABELS.parent) as folder:
            reader_writer.write_seg(labels, str(Path(folder) / label_file.name), properties)
            for path in Path(folder).iterdir():
                os.replace(path, label_file.parent / path.name)
    except RuntimeError as error:  # how SimpleITK reports a full disk
        raise InputError(f"{label_file}: cannot be written ({error}); is the disk full?") from error
    return sha256(label_file)
