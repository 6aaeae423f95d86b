"""A barely labelled copy of a densely labelled data set, with the dense labels kept beside as the oracle.

Images are hard-linked (copied where the file system refuses), labels are copied: whoever edits a label of the copy
must not edit the original with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_gmabs.annotation.planes import Plane, keep_planes, random_planes, roi_middle_planes, whole_plane
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import link_or_copy, write_json

ROI_MIDDLE = "roi-middle"
RANDOM = "random"
POSITIONS = (ROI_MIDDLE, RANDOM)


@dataclass(frozen=True)
class SparsifyPlan:
    """What to keep.

    Attributes:
        scans: how many training scans keep labels.
        planes: planes kept in each of them; None: all, so that the scan is labelled densely.
        seed: draws the scans, and the planes at random positions. With one seed, the 6 scans of a small budget are
            among the 20 of a larger one.
        position: "roi-middle": through the box of all foreground, in the middle where an axis gets one plane
            (released program of GM-ABS); "random": anywhere through the foreground.
        test: training scans moved to the test set first.
        test_seed: draws these, so that copies with different seeds share their test set.
    """

    scans: int
    planes: int | None = 3
    seed: int = 0
    position: str = ROI_MIDDLE
    test: int = 0
    test_seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("scans", 1), ("planes", 1), ("test", 0), ("seed", 0), ("test_seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}={value}: must be at least {least}")
        if self.position not in POSITIONS:
            raise InputError(f"position={self.position!r}: must be one of {', '.join(POSITIONS)}")


@dataclass
class SparsifyResult:
    """What was kept.

    Attributes:
        planes: for each labelled scan, its planes.
        unlabelled: training scans without a label file.
        test: training scans moved to the test set.
        linked, copied: number of image files made either way.
    """

    planes: dict[str, list[Plane]] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    linked: int = 0
    copied: int = 0


def choose_scans(identifiers: Iterable[str], plan: SparsifyPlan) -> tuple[list[str], list[str], list[str]]:
    """Which scans keep labels, which lose them, which are moved to the test set; each sorted.

    Raises:
        InputError: if there are too few scans.
    """
    everything = sorted(identifiers)
    if plan.test + plan.scans > len(everything):
        raise InputError(
            f"{plan.scans} labelled and {plan.test} test scans asked for, but there are only {len(everything)} scans"
        )
    order = np.random.default_rng(plan.test_seed).permutation(len(everything))
    test = sorted(everything[i] for i in order[: plan.test])
    left = sorted(everything[i] for i in order[plan.test :])
    order = np.random.default_rng(plan.seed).permutation(len(left))
    return sorted(left[i] for i in order[: plan.scans]), sorted(left[i] for i in order[plan.scans :]), test


def choose_planes(
    labels: np.ndarray, spacing_mm: Iterable[float], plan: SparsifyPlan, rng: np.random.Generator
) -> list[Plane]:
    """The planes of one scan that keep their labels, sorted by axis and index.

    Three planes are one on each axis. Other numbers go round the axes, beginning with the one whose planes are
    sharpest, that is the axis of the largest spacing. At "roi-middle", n planes of one axis stand at 1/(n+1),
    2/(n+1), ... of the foreground's box. All planes are those of the sharpest axis, which hold the whole scan. An image
    of one slice (2D data) is one plane, whatever their number.

    Args:
        labels: dense labels, (X, Y, Z), with foreground.
        spacing_mm: of the three axes.
        plan: number of planes and their position.
        rng: used for random positions.

    Raises:
        ValueError: if there is no foreground, or too little for that many distinct planes.
    """
    axes = sorted(range(3), key=lambda axis: (-list(spacing_mm)[axis], axis))
    if plan.planes is None:
        return [(axes[0], index) for index in range(labels.shape[axes[0]])]
    if (whole := whole_plane(labels.shape)) is not None and labels.any():
        return [whole]
    if plan.position == RANDOM and plan.planes % 3 == 0:
        return random_planes(labels, plan.planes, rng)
    counts = {axis: len(range(turn, plan.planes, 3)) for turn, axis in enumerate(axes)}
    if plan.position == ROI_MIDDLE and max(counts.values()) == 1:
        return [plane for plane in roi_middle_planes(labels) if counts[plane[0]]]
    chosen = []
    for axis, count in counts.items():
        held = np.flatnonzero((labels != 0).any(axis=tuple(a for a in range(3) if a != axis)))
        if len(held) < count:
            raise ValueError(f"{count} planes asked for on axis {axis}, but foreground crosses only {len(held)}")
        if plan.position == RANDOM:
            indices = rng.choice(held, size=count, replace=False)
        else:
            indices = held[0] + (held[-1] - held[0]) * np.arange(1, count + 1) // (count + 1)
        if len(set(indices.tolist())) < count:
            raise ValueError(f"{count} planes asked for on axis {axis}, but the foreground is only {len(held)} wide")
        chosen += [(axis, int(index)) for index in indices]
    return sorted(chosen)


def sparsify(
    source: Path, target: Path, plan: SparsifyPlan, progress: Callable[[list[str]], Iterable[str]] = iter
) -> SparsifyResult:
    """Make the barely labelled copy; target appears complete or not at all.

    In the copy labelsTr holds a file for the labelled scans only, everything outside their planes being the ignore
    label (added to dataset.json as the highest value), labelsTr_dense holds all dense labels of the training scans,
    and gmabs/sparsify.json tells what was kept.

    Args:
        source: DatasetXXX_Name folder with a label file for every training scan.
        target: DatasetXXX_Name folder to make.
        plan: what to keep.
        progress: wraps the loop over labelled scans, such as a progress bar.

    Raises:
        InputError: if target exists, or source lacks labels or foreground.
    """
    raw = RawFolder(source)
    if target.exists():
        raise InputError(f"{target} exists already; remove it, or choose another name")
    missing = [name for name in raw.scans() if not raw.label_path(name).is_file()]
    if missing:
        raise InputError(f"{raw.label_path(missing[0])} is missing ({len(missing)} in all); the source must be dense")
    labelled, unlabelled, test = choose_scans(raw.scans(), plan)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        result = SparsifyResult(unlabelled=unlabelled, test=test)
        _carry_over(raw, unfinished, set(test), result)
        dataset_json, ignore_label = raw.dataset_json_with_ignore()
        for identifier in progress(labelled):
            result.planes[identifier] = _write_sparse_labels(raw, unfinished, identifier, plan, ignore_label)
        write_json(unfinished / "dataset.json", {**dataset_json, "numTraining": len(labelled) + len(unlabelled)})
        _write_record(unfinished, source, plan, result)
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


def _carry_over(raw: RawFolder, target: Path, test: set[str], result: SparsifyResult) -> None:
    """Link the images and copy the dense labels of all scans, test scans to imagesTs and labelsTs."""
    for name in ("imagesTr", "labelsTr", "labelsTr_dense"):
        (target / name).mkdir()
    for identifier in raw.scans():
        moved = identifier in test
        images, labels = ("imagesTs", "labelsTs") if moved else ("imagesTr", "labelsTr_dense")
        _link_images(raw.images_of(identifier), target / images, result)
        _copy(raw.label_path(identifier), target / labels)
        _copy_spacing(raw, "imagesTr", identifier, target / images)
        _copy_spacing(raw, "labelsTr", identifier, target / labels)
    for identifier in raw.scans("imagesTs"):
        if identifier in test:
            raise InputError(f"{identifier}: is in imagesTr and in imagesTs; rename one of them")
        _link_images(raw.images_of(identifier, "imagesTs"), target / "imagesTs", result)
        _copy_spacing(raw, "imagesTs", identifier, target / "imagesTs")
        label = raw.label_path(identifier, "labelsTs")
        if label.is_file():
            _copy(label, target / "labelsTs")
            _copy_spacing(raw, "labelsTs", identifier, target / "labelsTs")


def _write_sparse_labels(
    raw: RawFolder, target: Path, identifier: str, plan: SparsifyPlan, ignore_label: int
) -> list[Plane]:
    path = raw.label_path(identifier)
    labels, properties = raw.read_labels(path)
    # Its own generator for each scan: which planes it gets does not depend on the other scans.
    rng = np.random.default_rng([plan.seed, *identifier.encode()])
    try:
        planes = choose_planes(np.where(labels == ignore_label, 0, labels), properties["spacing"], plan, rng)
    except ValueError as error:
        raise InputError(f"{path}: {error}; ask for fewer planes or take this scan out") from error
    raw.write_labels(keep_planes(labels, planes, ignore_label), target / "labelsTr" / path.name, properties)
    return planes


def _write_record(target: Path, source: Path, plan: SparsifyPlan, result: SparsifyResult) -> None:
    (target / "gmabs").mkdir()
    record = {"source": source.name, **plan.__dict__, "planes_kept": result.planes, "moved_to_test": result.test}
    write_json(target / "gmabs" / "sparsify.json", record)


def _link_images(paths: list[Path], folder: Path, result: SparsifyResult) -> None:
    folder.mkdir(exist_ok=True)
    for path in paths:
        if link_or_copy(path, folder / path.name):
            result.linked += 1
        else:
            result.copied += 1


def _copy_spacing(raw: RawFolder, folder: str, identifier: str, target: Path) -> None:
    """Copy <scan>.json, in which nnU-Net finds the spacing of .tif files, where there is one."""
    path = raw.folder / folder / f"{identifier}.json"
    if path.is_file():
        _copy(path, target)


def _copy(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / path.name)
