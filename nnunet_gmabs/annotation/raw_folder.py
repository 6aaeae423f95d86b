"""A data set in nnU-Net's raw format: where it lies, which scans it has, how its label files are read and written.

Arrays are (X, Y, Z) in nnU-Net's order, as the reader that nnU-Net takes for this data set returns them.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.intact import check_finite_labels, check_whole
from nnunet_gmabs.errors import InputError, reason
from nnunet_gmabs.files import replace_atomically, write_json


def find_raw_folder(name: str) -> Path:
    """The folder of a data set, absolute, given by ID (4), name (Dataset004_Heart) or path.

    A name means a folder in nnUNet_raw, and only where there is none one in the current folder: nnUNet_preprocessed and
    nnUNet_results have folders of the same name.

    Raises:
        InputError: if nnUNet_raw is needed and unset, or no or more than one folder fits.
    """
    here = Path(os.path.abspath(name))  # "." has a name then; links stay as they are
    if os.path.basename(name) != name or name in (os.curdir, os.pardir):
        if not here.is_dir():
            raise InputError(f"{here}: no such folder")
        return here
    is_here = here.is_dir() and not name.isdigit()
    if is_here and not os.environ.get("nnUNet_raw"):
        return here
    raw = raw_root()
    pattern = f"Dataset{int(name):03d}_*" if name.isdigit() else name
    found = sorted(path for path in (raw.glob(pattern) if name.isdigit() else [raw / name]) if path.is_dir())
    if not found and is_here:
        return here
    if not found:
        raise InputError(f"{name}: no folder {pattern} in {raw} (nnUNet_raw); which data set do you mean?")
    if len(found) > 1:
        raise InputError(f"{name}: more than one data set has this ID: {', '.join(path.name for path in found)}")
    return Path(os.path.abspath(found[0]))


def raw_root() -> Path:
    """The folder that nnUNet_raw names.

    Raises:
        InputError: if it is unset or no folder.
    """
    value = os.environ.get("nnUNet_raw")
    if not value:
        raise InputError("nnUNet_raw is not set; set it to the folder that holds your DatasetXXX_Name folders")
    if not Path(value).is_dir():
        raise InputError(f"nnUNet_raw={value}: no such folder; make it, or correct the variable")
    return Path(value)


def require_one_channel(path: Path, shape: tuple[int, ...], properties: dict[str, Any]) -> None:
    """Raise InputError for an image file of four axes: nnU-Net reads it, but cannot write labels for it.

    Args:
        path: the file.
        shape: (channels, X, Y, Z) as read.
        properties: nnU-Net's.
    """
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    axes = len(properties.get("sitk_stuff", {}).get("origin", ()))
    if axes > 3:
        raise InputError(
            f"{path}: has {axes} axes, as if all channels of shape {tuple(shape[1:])} were in it; write each channel "
            f"to a file of its own, ..._0000{ending}, ..._0001{ending}"
        )


def no_note_of_macos(path: Path) -> Path:
    """The path; InputError if macOS wrote the file beside one of the same name, as it does on foreign disks."""
    if path.name.startswith("._"):
        raise InputError(
            f"{path}: a note of macOS, no scan, which nnU-Net would take for one; remove all of them: "
            f"find '{path.parent}' -name '._*' -delete"
        )
    return path


class RawFolder:
    """One data set in nnU-Net's raw format.

    Args:
        folder: the DatasetXXX_Name folder.

    Raises:
        InputError: if dataset.json is missing or unusable, or lists its files itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "dataset.json"
        try:
            self.dataset_json: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self.file_ending: str = self.dataset_json["file_ending"]
            self.labels: dict[str, Any] = dict(self.dataset_json["labels"])
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; is {folder} a data set in nnU-Net's raw format?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not usable ({error!r}); see nnU-Net's documentation of its format") from error
        try:
            self.label_values  # noqa: B018 - it is read
        except (ValueError, TypeError) as error:
            raise InputError(
                f'{path}: labels must be names with their values, such as "background": 0, but are {self.labels}; '
                "write names first and values second, as nnU-Net v2 does"
            ) from error
        if not str(self.file_ending).startswith("."):
            raise InputError(f"{path}: file_ending is {self.file_ending!r}; it begins with a dot, as '.nii.gz' does")
        if "dataset" in self.dataset_json:
            raise InputError(f'{path}: lists its files under "dataset", which is not supported here; use imagesTr')

    def scans(self, folder: str = "imagesTr") -> list[str]:
        """Sorted identifiers of the scans in imagesTr or imagesTs; empty where there is no such folder."""
        return sorted({path.name[: -len(self.file_ending) - 5] for path in self._images(folder)})

    def images_of(self, identifier: str, folder: str = "imagesTr") -> list[Path]:
        """The files of one scan, one for each channel, sorted."""
        ending = len(self.file_ending) + 5
        return sorted(path for path in self._images(folder) if path.name[:-ending] == identifier)

    def label_path(self, identifier: str, folder: str = "labelsTr") -> Path:
        """Where the label file of a scan is, or would be."""
        return self.folder / folder / f"{identifier}{self.file_ending}"

    @property
    def ignore_label(self) -> int | None:
        """The value of the ignore label, None where dataset.json has none."""
        return self.labels.get("ignore")

    @property
    def label_values(self) -> set[int]:
        """All values that dataset.json knows, background and ignore included."""
        return {int(v) for value in self.labels.values() for v in (value if isinstance(value, list) else [value])}

    def dataset_json_with_ignore(self) -> tuple[dict[str, Any], int]:
        """A copy of dataset.json that has an ignore label, as the highest value, and that value."""
        if self.ignore_label is not None:
            return dict(self.dataset_json), self.ignore_label
        ignore_label = max(self.label_values) + 1
        return {**self.dataset_json, "labels": {**self.labels, "ignore": ignore_label}}, ignore_label

    @property
    def dataset_json_backup(self) -> Path:
        """Where the user's own first dataset.json is kept, once replace_dataset_json has changed it."""
        return self.folder / "gmabs" / "dataset.json.backup"

    def replace_dataset_json(self, content: dict[str, Any]) -> None:
        """Write a new dataset.json, atomically, after keeping the user's own first version in the folder gmabs.

        What was read of the old one stays in this object; the folder gmabs must exist.
        """
        path = self.folder / "dataset.json"
        if not self.dataset_json_backup.exists():  # the user's own first version is worth keeping, ours is not
            original = path.read_bytes()
            replace_atomically(self.dataset_json_backup, lambda temporary: temporary.write_bytes(original))
        write_json(path, content)

    def read_image(self, identifier: str) -> tuple[np.ndarray, dict[str, Any]]:
        """All channels of one scan, and what is needed to write labels for it.

        Returns:
            (channels, X, Y, Z) float, and nnU-Net's properties, with the spacing under "spacing".

        Raises:
            InputError: if there is no such scan, or a file cannot be read.
        """
        paths = self.images_of(identifier)
        if not paths:
            raise InputError(f"{self.folder / 'imagesTr'}: holds no scan {identifier}")
        try:
            image, properties = self._reader_writer.read_images([str(path) for path in paths])
        except Exception as error:  # every image library has its own exceptions for a broken file
            raise InputError(f"{paths[0]}: cannot be read ({reason(error)})") from error
        require_one_channel(paths[0], image.shape, properties)
        return image, properties

    def read_labels(self, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
        """The labels of one file and what is needed to write them back.

        Returns:
            (X, Y, Z) integers, and nnU-Net's properties, with the spacing under "spacing".

        Raises:
            InputError: if the file cannot be read or is truncated, or holds values that are no integers or not in
                dataset.json.
        """
        if path.is_file():
            check_whole(path)
            check_finite_labels(path)
        try:
            values, properties = self._reader_writer.read_seg(str(path))
        except Exception as error:  # every image library has its own exceptions for a broken file
            raise InputError(f"{path}: cannot be read ({reason(error)})") from error
        labels = values[0].astype(np.int32)
        if not np.array_equal(labels, values[0]):
            raise InputError(f"{path}: holds values that are no integers; labels must be integers")
        unknown = set(np.unique(labels).tolist()) - self.label_values - {self.dataset_json_with_ignore()[1]}
        if unknown:
            raise InputError(
                f"{path}: label values {sorted(unknown)} are not in dataset.json; correct the file or dataset.json"
            )
        return labels, properties

    def write_labels(self, labels: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
        """Write labels (X, Y, Z) with the geometry of the file the properties came from, atomically.

        What nnU-Net's writer puts beside them (of .tif the spacing, in a .json of the same name) comes first.
        """
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            made = Path(folder) / path.name
            self._reader_writer.write_seg(labels, str(made), properties)
            for part in [*(other for other in made.parent.iterdir() if other != made), made]:
                replace_atomically(path.with_name(part.name), partial(os.replace, part))

    def _images(self, folder: str) -> Iterator[Path]:
        channel = re.compile(r".+_\d{4}" + re.escape(self.file_ending))
        path = self.folder / folder
        return (no_note_of_macos(p) for p in (path.iterdir() if path.is_dir() else ()) if channel.fullmatch(p.name))

    @cached_property
    def _reader_writer(self) -> Any:
        from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

        example = next(self._images("imagesTr"), None)
        return determine_reader_writer_from_dataset_json(
            self.dataset_json, None if example is None else str(example), verbose=False
        )()
