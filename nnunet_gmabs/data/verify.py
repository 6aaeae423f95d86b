"""Every scan is checked before anything is written: readable, on one grid, and with labels that dataset.json knows.

nnU-Net's own check only warns about origin and direction, and a truncated .nii.gz is read without complaint by
SimpleITK, which fills up with zeros or worse. All of that is an error here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.intact import check_finite_labels, check_whole
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.same_grid import check_same_grid, geometry_of
from nnunet_gmabs.data.cases import Case, reader_writer_class
from nnunet_gmabs.data.record import all_records
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError, reason

SHOWN_ERRORS = 10


@dataclass(frozen=True)
class Facts:
    """What reading one scan told; stored in prepared.json, so that an unchanged scan is not read again.

    Attributes:
        images: name, size and time of each image file.
        image_hash: hash of voxels and geometry; equal hashes are the same scan.
        label_sha256: hash of the label file, None without one.
        labels: the values in the label file, sorted.
    """

    images: list[list[Any]]
    image_hash: str
    label_sha256: str | None
    labels: list[int]


@dataclass(frozen=True)
class _Job:
    case: Case
    channels: int
    known_labels: frozenset[int]
    reader: type


def verify_cases(
    raw: RawFolder, cases: Sequence[Case], known: dict[str, list[Facts]], workers: Workers
) -> dict[str, Facts]:
    """Check all scans, and the data set as a whole.

    Args:
        raw: the data set.
        cases: its scans.
        known: facts of earlier runs by identifier; a scan of which one still holds is not read again.
        workers: read the others.

    Returns:
        Facts of every scan, by identifier.

    Raises:
        InputError: naming up to ten files that are wrong, each with its cure.
    """
    facts = {case.identifier: f for case in cases for f in known.get(case.identifier, []) if _unchanged(case, f)}
    unread = [case for case in cases if case.identifier not in facts]
    reader = reader_writer_class(raw, cases) if unread else object  # nnU-Net takes one for all, by the first scan
    channels, known_labels = len(raw.dataset_json["channel_names"]), frozenset(raw.label_values)
    jobs = [_Job(case, channels, known_labels, reader) for case in unread]
    errors = {}
    for job, result in workers.map(_check_case, jobs, "Checking scans"):
        if isinstance(result, str):
            errors[job.case.identifier] = result
        else:
            facts[job.case.identifier] = result
    for case in cases:  # dataset.json may have changed since an unchanged scan was read
        if case.identifier in facts and not case.made:
            error = _unknown_labels(case.label_file, facts[case.identifier].labels, raw.label_values)
            errors |= {case.identifier: error} if error else {}
    messages = [errors[identifier] for identifier in sorted(errors)] or _same_scan_twice(facts)
    _raise_first(messages)
    return facts


def check_former_ignore_labels(raw: RawFolder, cases: Iterable[Case], pre: Path) -> None:
    """Voxels that were not drawn stay so: a class added to dataset.json must not get the value they have in old files.

    Raises:
        InputError: naming up to ten label files that are as they were when their ignore label had a value that is a
            class now.
    """
    names = {v: n for n, value in raw.labels.items() for v in (value if isinstance(value, list) else [value])}
    messages = {}
    for record in all_records(pre):
        old = record["labels"].get("ignore")
        if old is None or old == raw.ignore_label or old not in names:
            continue
        for case in cases:
            entry = record["cases"].get(case.identifier)
            if case.made or not entry or entry["label_sha256"] != case.label_sha256 or old not in entry["labels"]:
                continue
            new = "a new ignore label" if raw.ignore_label is None else raw.ignore_label
            messages[case.identifier] = (
                f"{case.label_file}: holds {old}, which was the ignore label when it was prepared and is "
                f"{names[old]!r} in dataset.json now; replace {old} by {new} in the file, or correct dataset.json. If "
                f"{old} does mean {names[old]!r} there, remove {pre}/*_gmabs/prepared.json"
            )
    _raise_first([messages[identifier] for identifier in sorted(messages)])


def _raise_first(messages: list[str]) -> None:
    if messages:
        more = [f"... and {len(messages) - SHOWN_ERRORS} more"] if len(messages) > SHOWN_ERRORS else []
        raise InputError("\n".join(messages[:SHOWN_ERRORS] + more))


def known_facts(pre: Path) -> dict[str, list[Facts]]:
    """What earlier runs of `gmabs prepare` found, by identifier; one for each data folder that knows the scan."""
    known: dict[str, list[Facts]] = {}
    for record in all_records(pre):
        for identifier, entry in record["cases"].items():
            known.setdefault(identifier, []).append(Facts(**{f.name: entry[f.name] for f in fields(Facts)}))
    return known


def labelled_scans(cases: Iterable[Case], facts: dict[str, Facts], ignore_label: int | None) -> list[str]:
    """Identifiers of the scans in which at least one voxel is drawn."""
    return [case.identifier for case in cases if not case.made and set(facts[case.identifier].labels) - {ignore_label}]


def classes_never_labelled(raw: RawFolder, facts: dict[str, Facts], labelled: Iterable[str]) -> list[str]:
    """Names of classes (with their value) that no voxel of any labelled scan shows."""
    drawn = {value for identifier in labelled for value in facts[identifier].labels}
    missing = []
    for name, value in raw.labels.items():
        if name != "ignore" and not drawn & set(value if isinstance(value, list) else [value]):
            missing.append(f"{name} ({value})")
    return missing


def _unchanged(case: Case, facts: Facts) -> bool:
    return facts.label_sha256 == case.label_sha256 and facts.images == case.image_stamps()


def _check_case(job: _Job) -> Facts | str:
    """Facts of one scan, or what is wrong with it (in a worker)."""
    try:
        return _read_case(job)
    except InputError as error:
        return str(error)


def _read_case(job: _Job) -> Facts:
    case = job.case
    stamps = case.image_stamps()
    for path in (*case.image_files, *([case.label_file] if case.label_sha256 else [])):
        check_whole(path)
    reader = job.reader()
    channels = [_read(reader.read_images, (str(path),), path) for path in case.image_files]
    first, geometry = channels[0]
    for path, (array, other) in zip(case.image_files[1:], channels[1:], strict=True):
        check_same_grid(path, array.shape, other, case.image_files[0], first.shape, geometry)
    image = np.concatenate([array for array, _ in channels])
    _check_image(case, image, job.channels)
    labels: list[int] = []
    if case.label_sha256:
        check_finite_labels(case.label_file)
        array, label_geometry = _read(reader.read_seg, str(case.label_file), case.label_file)
        check_same_grid(
            case.label_file, array.shape, label_geometry, case.image_files[0], (1, *image.shape[1:]), geometry
        )
        labels = _label_values(case.label_file, array)
        unknown = None if case.made else _unknown_labels(case.label_file, labels, job.known_labels)
        if unknown:
            raise InputError(unknown)
    return Facts(stamps, _image_hash(image, geometry), case.label_sha256, labels)


def _read(read: Any, argument: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        return read(argument)
    except Exception as error:  # every image library has its own exceptions for a broken file
        last = reason(error)
        cure = "copy or export it again"
        if "orthonormal" in last:  # axes that are not at right angles
            cure += ', or write "overwrite_image_reader_writer": "NibabelIO" into dataset.json'
        raise InputError(f"{path}: cannot be read ({last}); {cure}") from error


def _check_image(case: Case, image: np.ndarray, channels: int) -> None:
    path = case.image_files[0]
    if len(image) != channels:
        found = ", ".join(p.name for p in case.image_files)
        raise InputError(
            f"{path}: {case.identifier} has {len(image)} channels ({found}), but dataset.json names {channels} "
            "under channel_names; add the missing file, or correct dataset.json"
        )
    for number, file in enumerate(case.image_files):
        if not file.name.startswith(f"{case.identifier}_{number:04d}."):
            raise InputError(f"{file}: channel {number} of {case.identifier} is missing; number them from 0000")
    if not np.isfinite(image).all():
        raise InputError(f"{path}: holds NaN or infinite values; replace them by what stands for air or background")
    if not image.any():
        raise InputError(f"{path}: is 0 everywhere; remove the scan or export it again")


def _label_values(path: Path, array: np.ndarray) -> list[int]:
    values = np.unique(array)
    fractions = values[values != np.rint(values)]  # NaN differs from itself, so it is one of them
    if len(fractions):
        raise InputError(
            f"{path}: holds {fractions[0]:g}, which is no integer; was it resampled with interpolation? "
            "Export it with nearest-neighbour interpolation"
        )
    return [int(v) for v in values]


def _unknown_labels(path: Path, labels: Iterable[int], known: Iterable[int]) -> str | None:
    known = set(known)
    unknown = sorted(set(labels) - known)
    if not unknown:
        return None
    hint = f', or add "ignore": {max(known) + 1} there if it means not labelled' if max(known) + 1 in unknown else ""
    return f"{path}: holds {unknown}, but dataset.json knows {sorted(known)}; correct the file or dataset.json{hint}"


def _same_scan_twice(facts: dict[str, Facts]) -> list[str]:
    seen: dict[str, str] = {}
    messages = []
    for identifier in sorted(facts):
        twin = seen.setdefault(facts[identifier].image_hash, identifier)
        if twin != identifier:
            messages.append(
                f"imagesTr: {twin} and {identifier} are the same scan (equal voxels and geometry); remove one, "
                "or it may be trained and validated on at once"
            )
    return messages


def _image_hash(image: np.ndarray, geometry: dict[str, Any]) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    digest.update(repr([value.round(6).tolist() for value in geometry_of(geometry).values()]).encode())
    return digest.hexdigest()
