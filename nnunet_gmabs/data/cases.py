"""Which scans a raw data set has, and what can be wrong before any of them is opened: dataset.json, names, splits."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_gmabs.annotation.intact import check_whole
from nnunet_gmabs.annotation.raw_folder import RawFolder, no_note_of_macos
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import is_unfinished, sha256

# What nnU-Net's readers open; another file with such an ending and the same name is the same scan twice.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png", ".bmp")
HIGHEST_LABEL = 254  # the painter's 255 says that nothing is drawn
MADE_LABELS = Path("gmabs") / "made_labels.json"


@dataclass(frozen=True)
class Case:
    """One training scan in nnU-Net's raw format.

    Attributes:
        identifier: nnU-Net's name of the scan.
        image_files: one file for each channel, in order (of an RGB picture one holds all).
        label_file: where the labels are, or would be.
        label_sha256: hash of that file, None where it does not exist.
        made: whether `gmabs prepare` made the label file, and nobody has changed it since.
    """

    identifier: str
    image_files: tuple[Path, ...]
    label_file: Path
    label_sha256: str | None
    made: bool

    def image_stamps(self) -> list[list[Any]]:
        """Name, size and time of the image files: unchanged means that they need not be read again."""
        return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in self.image_files]


def preprocessed_folder(raw: Path) -> Path:
    """Where nnU-Net keeps the preprocessed data of a raw data set, whether or not it exists.

    Raises:
        InputError: if nnUNet_preprocessed is unset.
    """
    value = os.environ.get("nnUNet_preprocessed")
    if not value:
        raise InputError("nnUNet_preprocessed is not set; set it to the folder for preprocessed data sets")
    return Path(value) / raw.name


def find_cases(raw: RawFolder) -> list[Case]:
    """All training scans, sorted by identifier.

    Raises:
        InputError: if files are named so that nnU-Net would miss or mix up a scan, a channel or a label.
    """
    images = _images_by_identifier(raw)
    labels = _label_names(raw)
    made = read_made_labels(raw.folder)
    orphans = [name for name in labels if name not in images and made.get(name) != sha256(raw.label_path(name))]
    if orphans:
        raise InputError(
            f"{raw.label_path(orphans[0])}: there is no image {orphans[0]}_0000{raw.file_ending} in imagesTr"
            f"{_and_others(orphans)}; rename or remove the label file"
        )
    cases = []
    for identifier, files in sorted(images.items()):
        label_file = raw.label_path(identifier)
        digest = sha256(label_file) if label_file.is_file() else None
        is_made = digest is not None and made.get(identifier) == digest
        cases.append(Case(identifier, tuple(sorted(files)), label_file, digest, is_made))
    return cases


def reader_writer_class(raw: RawFolder, cases: Sequence[Case]) -> type:
    """The class with which nnU-Net reads and writes this data set, found by opening its first image.

    Raises:
        InputError: if it is truncated, or no class of nnU-Net can open it.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    example = cases[0].image_files[0]
    check_whole(example)
    try:
        return determine_reader_writer_from_dataset_json(raw.dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise InputError(f"{example}: no reader of nnU-Net can open it; copy or export it again") from error


def read_made_labels(raw: Path) -> dict[str, str]:
    """Hashes of the label files that `gmabs prepare` made for unlabelled scans, by identifier."""
    try:
        return json.loads((raw / MADE_LABELS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def check_dataset_json(raw: RawFolder) -> None:
    """Raise InputError if dataset.json declares labels or channels in a way that nnU-Net would trip over."""
    path = raw.folder / "dataset.json"
    if not raw.dataset_json.get("channel_names"):
        raise InputError(f'{path}: no "channel_names"; give one name to each channel, such as {{"0": "CT"}}')
    if raw.labels.get("background") != 0:
        raise InputError(
            f'{path}: labels must hold "background": 0, but hold {raw.labels}; '
            "write names first and values second, as nnU-Net v2 does"
        )
    for name, value in raw.labels.items():
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, (str, bool)):  # nnU-Net takes "2" in a region for a value that no voxel has
                raise InputError(f"{path}: the value of {name!r} holds {v!r}; write an integer, without quotes")
    values = raw.label_values
    ignore = raw.ignore_label
    if ignore is not None and (not isinstance(ignore, int) or isinstance(ignore, bool)):
        raise InputError(f'{path}: "ignore" is {ignore!r}; it must be one integer')
    if ignore is not None and ignore != max(values):
        raise InputError(
            f'{path}: "ignore" is {ignore}, but the highest label is {max(values)}; the ignore label must be the '
            "highest. Give it the next higher value, there and in the label files"
        )
    others = [n for n, v in raw.labels.items() if n != "ignore" and ignore in (v if isinstance(v, list) else [v])]
    if ignore is not None and others:
        raise InputError(f'{path}: "ignore" and "{others[0]}" have the same value {ignore}')
    missing = sorted(set(range(max(values) + 1)) - values)
    after = max(values - {ignore}) + 1
    if missing and missing == list(range(after, max(values))):
        raise InputError(
            f'{path}: "ignore" is {ignore}, but must be {after}, the value after those of the classes; change it there '
            "and in the label files that hold it"
        )
    if missing:
        raise InputError(f"{path}: labels must be 0, 1, 2, ... without gaps, but {missing} are missing")
    if max(values) > HIGHEST_LABEL:
        raise InputError(
            f"{path}: the highest label is {max(values)}, but labels are kept in one byte here, so that "
            f"{HIGHEST_LABEL} is the most; leave classes out, or merge some"
        )
    if any(isinstance(v, list) and len(v) > 1 for v in raw.labels.values()):
        _check_regions(raw, path)


def _check_regions(raw: RawFolder, path: Path) -> None:
    order = raw.dataset_json.get("regions_class_order")
    regions = [name for name, value in raw.labels.items() if name not in ("background", "ignore")]
    if not isinstance(order, list) or len(order) != len(regions):
        raise InputError(
            f'{path}: regions need "regions_class_order" with one value for each of {regions}, but it is {order}'
        )
    known = sorted(raw.label_values - {0, raw.ignore_label})
    if wrong := [value for value in order if value not in known]:
        raise InputError(
            f'{path}: "regions_class_order" holds {wrong[0]!r}, which is no label ({known}) but would be predicted; '
            "give each region the value of the voxels that are in it and in no smaller region"
        )


def check_splits(path: Path, scans: Iterable[str], labelled: Iterable[str]) -> None:
    """Raise InputError if a user's splits_final.json names scans that do not exist, or validates on unlabelled ones."""
    known, labelled = set(scans), set(labelled)
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
        named = [(number, part, name) for number, fold in enumerate(folds) for part in fold for name in fold[part]]
        empty = [number for number, fold in enumerate(folds) if not fold["train"] or not fold["val"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: not usable ({error!r}); it must be a list of {{"train": [...], "val": [...]}}'
        ) from error
    for number, part, name in named:
        if name not in known:
            raise InputError(f"{path}: fold {number} lists {name} under {part}, but imagesTr holds no such scan")
        if part == "val" and name not in labelled:
            raise InputError(
                f"{path}: fold {number} lists {name} for validation, but it is unlabelled; take it out, "
                "or remove the file and let `gmabs prepare` make one over the labelled scans"
            )
    if empty:
        raise InputError(f'{path}: fold {empty[0]} has an empty "train" or "val"')


def _images_by_identifier(raw: RawFolder) -> dict[str, list[Path]]:
    folder = raw.folder / "imagesTr"
    names = _names(folder, raw.file_ending)
    pattern = re.compile(r"(?P<identifier>.+)_\d{4}")
    images: dict[str, list[Path]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            raise InputError(
                f"{folder / (name + raw.file_ending)}: the name does not end with a channel number; "
                f"call it {name}_0000{raw.file_ending}"
            )
        images.setdefault(match["identifier"], []).append(folder / (name + raw.file_ending))
    if not images:
        raise InputError(f"{folder}: holds no image that ends with {raw.file_ending} (file_ending in dataset.json)")
    wrong = [i for i in images if i.endswith("_seg")]
    if wrong:
        raise InputError(f"{images[wrong[0]][0]}: nnU-Net overlooks scans whose name ends with _seg; rename it")
    _refuse_twins(folder, sorted(images), "scan")
    return images


def _label_names(raw: RawFolder) -> list[str]:
    return _names(raw.folder / "labelsTr", raw.file_ending)


def _names(folder: Path, file_ending: str) -> list[str]:
    """Names without ending of the files with the data set's ending; another image ending, or case, is an error.

    So is a link that leads nowhere, as on a disk that is away: nnU-Net would overlook the scan.
    """
    if not folder.is_dir():
        return []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists() and path.name.endswith((*IMAGE_ENDINGS, file_ending)):
            raise InputError(f"{path}: is a link to a file that is not there; fetch that file, or remove the link")
    # what a killed merge has left is no label file: the next one removes it
    files = sorted(no_note_of_macos(p).name for p in folder.iterdir() if p.is_file() and not is_unfinished(p))
    names = [name.removesuffix(file_ending) for name in files if name.endswith(file_ending)]
    for name in files:
        ending = next((e for e in (*IMAGE_ENDINGS, file_ending) if name.lower().endswith(e.lower())), None)
        if ending is None or name.endswith(file_ending):
            continue
        stem, other = name[: -len(ending)], name[-len(ending) :]
        if stem in names:
            raise InputError(f"{folder / name}: the same scan is there as {stem}{file_ending}; remove one")
        if other.lower() == file_ending.lower():
            raise InputError(
                f"{folder / name}: ends with {other}, but file_ending in dataset.json is {file_ending}, "
                "so nnU-Net would overlook it; rename it"
            )
        raise InputError(
            f"{folder / name}: ends with {other}, but file_ending in dataset.json is {file_ending}, "
            "so nnU-Net would overlook it; convert or remove it"
        )
    _refuse_twins(folder, names, "file")
    return names


def _refuse_twins(folder: Path, names: list[str], what: str) -> None:
    """Two names that differ in upper and lower case only are one file on many disks."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            raise InputError(f"{folder}: {twin} and {name} name the same {what} on many disks; rename or remove one")


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more such files)" if len(names) > 1 else ""
