"""Label files from other programs, read as labels of a scan: on its grid, with the classes of dataset.json.

A .seg.nrrd of 3D Slicer may be cut down to what was painted, number its segments as it likes, and hold several layers.
Names of segments go before numbers.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.exchange import NOT_DRAWN, class_names
from nnunet_gmabs.annotation.geometry import Grid, embed, grid_of_file, offset_on
from nnunet_gmabs.annotation.intact import check_finite_labels, check_whole
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.same_grid import check_same_grid
from nnunet_gmabs.errors import InputError, reason

READABLE = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha", ".mhd")


@dataclass(frozen=True)
class ForeignLabels:
    """What a file says.

    Attributes:
        labels: (X, Y, Z) int32 in nnU-Net's order; 0 outside of a file that is cut down.
        properties: nnU-Net's, for writing labels of this scan.
        notes: what was noticed, for people.
    """

    labels: np.ndarray
    properties: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_foreign(raw: RawFolder, identifier: str, path: Path) -> ForeignLabels:
    """The labels in a file that another program wrote for a scan.

    Args:
        raw: the data set.
        identifier: the scan.
        path: the file; its geometry is compared with that of the scan's first image file.

    Raises:
        InputError: if it cannot be read, lies elsewhere, or holds values or segments that dataset.json does not know.
    """
    import SimpleITK as sitk

    check_whole(path)
    check_finite_labels(path)
    try:
        reference = grid_of_file(raw.images_of(identifier)[0])
    except RuntimeError:
        return _with_readers_eyes(raw, identifier, path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    try:
        values, notes = class_values(image, raw)
        offset = offset_on(Grid.of(image), reference)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if tuple(values.shape[::-1]) != tuple(reference.size):
        notes = [*notes, f"cut down to {' x '.join(map(str, values.shape[::-1]))} voxels, put back at {offset}"]
    labels, properties = _in_readers_order(raw, embed(values, offset, reference.size), reference)
    return ForeignLabels(labels, properties, tuple(notes))


def _with_readers_eyes(raw: RawFolder, identifier: str, path: Path) -> ForeignLabels:
    """The labels of a scan that SimpleITK does not open, such as one whose axes are not at right angles."""
    reference_file = raw.images_of(identifier)[0]
    if not path.name.endswith(raw.file_ending):
        raise InputError(f"{path}: {reference_file} is read by nnU-Net alone; save labels of it as {raw.file_ending}")
    labels, properties = raw.read_labels(path)
    image, geometry = raw.read_image(identifier)
    check_same_grid(path, (1, *labels.shape), properties, reference_file, image.shape, geometry)
    return ForeignLabels(labels, properties)


def class_values(image: Any, raw: RawFolder) -> tuple[np.ndarray, list[str]]:
    """The voxels of a SimpleITK image as values of dataset.json, (z, y, x) int32, and what was noticed.

    Raises:
        InputError: for values or segments that dataset.json does not know, and for segments that overlap.
    """
    import SimpleITK as sitk

    stored = sitk.GetArrayFromImage(image)
    layers = stored if image.GetNumberOfComponentsPerPixel() > 1 else stored[..., None]
    layers = layers[None] if image.GetDimension() == 2 else layers
    if layers.ndim != 4:
        raise InputError(f"has shape {stored.shape}; labels of a scan have three axes")
    integers = layers.astype(np.int32)
    if not np.array_equal(integers, layers):
        raise InputError("holds values that are no integers; labels must be integers")
    segments = _segments(image)
    known = _values_by_name(raw) if segments else {}
    named = [name for name, _, _ in segments if _plain(name) in known]
    if segments and (named or layers.shape[-1] > 1):
        return _by_name(integers, segments, known)
    if layers.shape[-1] > 1:
        raise InputError(f"holds {layers.shape[-1]} values in each voxel and no names; export one label map")
    notes = []
    if segments:
        notes = [f"segments {', '.join(repr(name) for name, _, _ in segments)} are no classes: taken by their numbers"]
    unknown = sorted(set(np.unique(integers).tolist()) - raw.label_values)
    if unknown:
        classes = ", ".join(f"{value} = {name}" for name, value in raw.labels.items())
        raise InputError(f"holds the values {unknown}, which dataset.json does not know ({classes})")
    return integers[..., 0], notes


def _by_name(
    layers: np.ndarray, segments: list[tuple[str, int, int]], known: dict[str, int]
) -> tuple[np.ndarray, list[str]]:
    """Each segment's voxels get the value of the class with its name."""
    values = np.zeros(layers.shape[:3], dtype=np.int32)
    taken = np.zeros(values.shape, dtype=bool)
    seen = np.zeros(layers.shape, dtype=bool)
    renumbered = []
    for name, number, layer in segments:
        held = layers[..., layer] == number
        seen[..., layer] |= held
        if not held.any():
            continue
        if _plain(name) not in known:
            raise InputError(f"segment {name!r} is no class of dataset.json; call it one of {sorted(known)}")
        value = known[_plain(name)]
        if (taken & held & (values != value)).any():
            count = int((taken & held & (values != value)).sum())
            raise InputError(f"segment {name!r} overlaps others in {count} voxels; a voxel has one class")
        values[held], taken = value, taken | held
        if value != number:
            renumbered.append(f"{name!r} has number {number} in the file and {value} in dataset.json")
    nameless = sorted(set(np.unique(layers[~seen]).tolist()) - {0})
    if nameless:
        raise InputError(f"holds the values {nameless}, which belong to none of its segments")
    return values, [f"renumbered, read by name: {'; '.join(renumbered)}"] if renumbered else []


def _segments(image: Any) -> list[tuple[str, int, int]]:
    """Name, number and layer of each segment that a .seg.nrrd lists; empty for other files."""
    keys = set(image.GetMetaDataKeys())
    found = sorted(int(match[1]) for key in keys if (match := re.fullmatch(r"Segment(\d+)_Name", key)))
    segments = []
    for n in found:
        number = image.GetMetaData(f"Segment{n}_LabelValue") if f"Segment{n}_LabelValue" in keys else str(n + 1)
        layer = image.GetMetaData(f"Segment{n}_Layer") if f"Segment{n}_Layer" in keys else "0"
        segments.append((image.GetMetaData(f"Segment{n}_Name"), int(number), int(layer)))
    return segments


def _values_by_name(raw: RawFolder) -> dict[str, int]:
    """Values by the plain names that segments may have: those of dataset.json, and those that editors get or got.

    Raises:
        InputError: if two values have one plain name.
    """
    single = [(name, v[0] if isinstance(v, list) else v) for name, v in raw.labels.items() if np.size(v) == 1]
    given = [(name, value) for value, name in class_names(raw).items()] + _given_before(raw)
    grey = [] if raw.ignore_label is None else [(NOT_DRAWN, raw.ignore_label)]
    found: dict[str, tuple[str, int]] = {}
    for name, value in [*single, *given, *grey]:
        other, taken = found.setdefault(_plain(name), (name, int(value)))
        if taken != int(value):
            raise InputError(
                f"{other!r} ({taken}) and {name!r} ({value}) have one name for programs that write _ for a space and "
                f"do not tell capitals; rename one of them in {raw.folder / 'dataset.json'}"
            )
    return {plain: value for plain, (_, value) in found.items()}


def _given_before(raw: RawFolder) -> list[tuple[str, int]]:
    """Names of earlier rounds: first region that holds a value, and the value, unless a class is that value alone."""
    regions = [(name, held) for name, held in raw.labels.items() if np.size(held) > 1]
    alone = {int(np.ravel(value)[0]) for value in raw.labels.values() if np.size(value) == 1}
    shared = [value for value in class_names(raw) if value not in alone]
    return [(f"{next(name for name, held in regions if value in held)} {value}", value) for value in shared]


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


def _in_readers_order(raw: RawFolder, values: np.ndarray, reference: Grid) -> tuple[np.ndarray, dict[str, Any]]:
    """Values (z, y, x) as nnU-Net's reader for this data set returns them; some readers turn axes."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values.astype(np.int16))
    image.SetSpacing(reference.spacing.tolist())
    image.SetOrigin(reference.origin.tolist())
    image.SetDirection(reference.direction.ravel().tolist())
    if reference.axes == 2:
        image = image[:, :, 0]  # labels get as many axes as the image, or nnU-Net sees two spacings
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{raw.file_ending}"
        sitk.WriteImage(image, str(path), False)
        return raw.read_labels(path)
