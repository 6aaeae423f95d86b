"""Label files in which 0 means both background and not drawn, turned into label files with the ignore label.

Which planes were drawn is taken from a list, or found: labels of planes that were drawn one by one lie in the union
of few planes. Where that cannot be told for certain nothing is guessed: what was not drawn must never become
background.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.journal import changing
from nnunet_gmabs.annotation.planes import Plane, covering_planes, keep_planes, plane_mask
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, write_json

AUTO = "auto"
ALL = "all"
PlaneList = Mapping[str, Any]


@dataclass(frozen=True)
class ScanImport:
    """What is going to happen to one label file.

    Attributes:
        identifier: the scan.
        planes: planes that were drawn; None where the whole scan was, and the file stays as it is.
        labelled_voxels: how many voxels are not 0.
    """

    identifier: str
    planes: list[Plane] | None
    labelled_voxels: int


@dataclass(frozen=True)
class ImportPlan:
    """What is going to happen to a data set.

    Attributes:
        scans: label files that will be turned.
        imported: identifiers of those that hold the ignore label already, and stay as they are.
        ignore_label: its value.
        dataset_json: with the ignore label.
    """

    scans: list[ScanImport]
    imported: list[str]
    ignore_label: int
    dataset_json: dict[str, Any]


def read_plane_list(path: Path) -> PlaneList:
    """The list of drawn planes: {identifier: [[axis, index], ...]}, or "all", or "auto", from YAML or JSON.

    Raises:
        InputError: if the file is not such a list.
    """
    import yaml

    try:
        # JSON is YAML. All words are text at first: to YAML a scan called 010 would be the number 8
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; to have the planes found, say --planes auto") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: neither YAML nor JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold one entry for each scan, such as  scan_1: [[0, 20], [1, 31], [2, 18]]")
    found: dict[str, Any] = {}
    for identifier, planes in content.items():
        if planes in (ALL, AUTO):
            found[identifier] = planes
        elif isinstance(planes, list) and all(_is_plane(plane) for plane in planes):
            found[identifier] = [[int(axis), int(index)] for axis, index in planes]
        else:
            written = json.dumps(planes).replace('"', "") or "nothing"
            raise InputError(
                f"{path}: {identifier}: {written} is no list of planes; write it as [[axis, index], ...] with axis 0, "
                "1 or 2, or as all"
            )
    return found


def plan_import(
    raw: RawFolder, planes: PlaneList | None, progress: Callable[[list[Path]], Iterable[Path]] = iter
) -> ImportPlan:
    """Look at all label files; changes nothing.

    Args:
        raw: the data set.
        planes: from read_plane_list; None to find the planes of every scan.
        progress: wraps the loop over files, such as a progress bar.

    Raises:
        InputError: if the planes of a scan are not listed, do not hold all its labels, or cannot be found.
    """
    dataset_json, ignore_label = raw.dataset_json_with_ignore()
    paths = sorted(path for path in (raw.folder / "labelsTr").glob(f"*{raw.file_ending}"))
    if not paths:
        raise InputError(f"{raw.folder / 'labelsTr'}: no label file that ends with {raw.file_ending}")
    identifiers = [path.name[: -len(raw.file_ending)] for path in paths]
    unknown = sorted(set(planes or {}) - set(identifiers))
    if unknown:
        raise InputError(f"the list of planes names {unknown[0]}, but labelsTr holds no such file")
    scans, imported = [], []
    for path, identifier in zip(progress(paths), identifiers, strict=True):
        labels, _ = raw.read_labels(path)
        if (labels == ignore_label).any():
            if raw.ignore_label is None:  # it may be a class that is missing there; its scan would count as drawn
                raise InputError(
                    f"{path}: holds {ignore_label}, which dataset.json does not know ({sorted(raw.label_values)}); "
                    f'add "ignore": {ignore_label} there if it means not drawn, or the class'
                )
            imported.append(identifier)
            continue
        if planes is not None and identifier not in planes:
            raise InputError(f"{path}: the list of planes says nothing about {identifier}; add it")
        wanted: Any = AUTO if planes is None else planes[identifier]
        drawn: list[Plane] | None = None
        if wanted != ALL:
            drawn = _found(labels, path, identifier) if wanted == AUTO else _listed(labels, wanted, path)
        scans.append(ScanImport(identifier, drawn, int((labels != 0).sum())))
    return ImportPlan(scans, imported, ignore_label, dataset_json)


def find_drawn_planes(labels: np.ndarray) -> list[Plane]:
    """The planes that must have been drawn, sorted; empty where no voxel is labelled.

    A drawn plane without any label on it cannot be found.

    Args:
        labels: (X, Y, Z) integers, 0 where background or not drawn.

    Raises:
        ValueError: if labels fill a solid, as in densely labelled scans or on neighbouring planes; or if some voxels
            lie on a line or alone, so that they do not tell the direction of their plane.
    """
    labelled = labels != 0
    solid = _first_solid(labelled)
    if solid is not None:
        raise ValueError(f"labels fill a solid of 2 x 2 x 2 voxels at {solid}, as if drawn densely, not plane by plane")
    chosen = covering_planes(labels)
    for plane in chosen:
        others = [other for other in chosen if other != plane]
        own = np.argwhere(labelled & ~plane_mask(labels.shape, others))
        extent = np.ptp(own, axis=0)
        if any(extent[axis] == 0 and labels.shape[axis] > 1 for axis in range(labels.ndim) if axis != plane[0]):
            raise ValueError(
                f"{len(own)} labelled voxels near {tuple(own[0].tolist())} lie on a line or alone, "
                "so they do not tell on which plane they were drawn"
            )
    return chosen


def apply_import(raw: RawFolder, plan: ImportPlan, progress: Callable[[list], Iterable] = iter) -> Path | None:
    """Turn the label files; if something fails, all are as they were.

    dataset.json gets the ignore label first, so that label files are valid at every moment.

    Args:
        raw: the data set.
        plan: from plan_import.
        progress: wraps the loop over files, such as a progress bar.

    Returns:
        The folder with the files as they were before; None if nothing had to be changed.

    Raises:
        InputError: if another command is changing labels, or a file was saved since it was looked at.
    """
    turned = [scan for scan in plan.scans if scan.planes is not None]
    if not turned and plan.dataset_json == raw.dataset_json:
        return None
    with changing(raw.folder):
        return _apply(raw, plan, turned, progress)


def _apply(raw: RawFolder, plan: ImportPlan, turned: list[ScanImport], progress: Callable[[list], Iterable]) -> Path:
    paths = {scan.identifier: raw.label_path(scan.identifier) for scan in turned}
    dataset_file = raw.folder / "dataset.json"
    if RawFolder(raw.folder).dataset_json != raw.dataset_json:
        raise _saved_meanwhile(dataset_file)
    backup = _back_up(raw.folder, [dataset_file, *paths.values()])
    rollback = Rollback()
    try:
        for path in (dataset_file, *paths.values()):
            rollback.remember(path)
        write_json(dataset_file, plan.dataset_json)
        for scan in progress(turned):
            path = paths[scan.identifier]
            labels, properties = raw.read_labels(path)
            if int((labels != 0).sum()) != scan.labelled_voxels:
                raise _saved_meanwhile(path)
            raw.write_labels(keep_planes(labels, scan.planes or [], plan.ignore_label), path, properties)
    except BaseException:
        rollback.restore()
        raise
    return backup


def _saved_meanwhile(path: Path) -> InputError:
    return InputError(f"{path}: was saved since gmabs import looked at it; run it again")


def _is_plane(value: object) -> bool:
    """Whether a list as it is written is one of axis and index."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, str) and re.fullmatch(r"[0-9]+", v) for v in value)
        and int(value[0]) in (0, 1, 2)
    )


def _found(labels: np.ndarray, path: Path, name: str) -> list[Plane]:
    try:
        return find_drawn_planes(labels)
    except ValueError as error:
        raise InputError(
            f"{path}: {error}; list the planes of every scan in a file and name it with --planes: "
            f"{name}: [[axis, index], ...], or {name}: all if the whole scan was drawn"
        ) from error


def _listed(labels: np.ndarray, planes: list[list[int]], path: Path) -> list[Plane]:
    drawn = sorted((axis, index) for axis, index in planes)
    try:
        outside = np.argwhere((labels != 0) & ~plane_mask(labels.shape, drawn))
    except ValueError as error:
        raise InputError(f"{path}: {error}; axes are in nnU-Net's order, shape here {labels.shape}") from error
    if len(outside):
        raise InputError(
            f"{path}: {len(outside)} labelled voxels are on none of the listed planes, the first at "
            f"{tuple(outside[0].tolist())}; axes are in nnU-Net's order (for NIfTI files the reverse of x, y, z)"
        )
    return drawn


def _first_solid(mask: np.ndarray) -> tuple[int, ...] | None:
    """Lowest corner of the first 2 x 2 x 2 cube of True, None if there is none."""
    solid = np.ones([n - 1 for n in mask.shape], dtype=bool)
    for corner in itertools.product((0, 1), repeat=mask.ndim):
        solid &= mask[tuple(slice(c, n - 1 + c) for c, n in zip(corner, mask.shape, strict=True))]
    found = np.argwhere(solid)
    return tuple(found[0].tolist()) if len(found) else None


def _back_up(folder: Path, paths: Iterable[Path]) -> Path:
    """Copy files of a data set to gmabs/backup/import_001 (or the next number), keeping their folders."""
    numbers = itertools.count(1)
    backup = next(path for n in numbers if not (path := folder / "gmabs" / "backup" / f"import_{n:03d}").exists())
    try:
        for path in paths:
            copy = backup / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    except BaseException:  # half a backup is none
        shutil.rmtree(backup, ignore_errors=True)
        raise
    return backup
