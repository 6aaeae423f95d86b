"""Tiny data sets in nnU-Net's raw format, made in code: scans of differing size and spacing, planes in some of them."""

import json

import numpy as np
import SimpleITK as sitk

from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder

IGNORE = 3
LABELS = {"background": 0, "left": 1, "right": 2}
ORIGIN = (10.0, -20.0, 30.0)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
FIRST_PLANES = [(0, 6), (1, 8), (2, 9)]


def write_image(path, array, spacing=(1.0, 1.0, 1.0), origin=ORIGIN, direction=DIRECTION):
    """Write an array in nnU-Net's axis order; spacing in that order, too."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    image.SetOrigin(origin)
    image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)


def scan_shape(number):
    """Every axis of every scan has its own length."""
    return 12 + number % 3, 15 + number % 2, 18 + number % 4


def scan_spacing(number):
    return 1.0 + 0.1 * (number % 4), 1.0 + 0.05 * (number % 3), 1.1


def scan_image(number, masked=False):
    """Bright boxes on noise; with masked, only the middle is not 0."""
    rng = np.random.default_rng(number)
    image = rng.normal(100, 10, scan_shape(number)) + 80 * (scan_labels(number) == 1) - 40 * (scan_labels(number) == 2)
    if masked:
        inside = np.zeros(image.shape, bool)
        inside[2:-2, 3:-3, 4:-4] = True
        inside[2:4, 3:5, 4:6] = False  # a corner of the box is outside the mask
        image = np.where(inside, image, 0)
    return image.astype(np.float32)


def scan_labels(number):
    """Dense labels: two boxes."""
    labels = np.zeros(scan_shape(number), np.uint8)
    labels[4:9, 5:11, 6:9] = 1
    labels[5:8, 6:10, 9:13] = 2
    return labels


def name(number):
    return f"scan_{number:02d}"


def write_dataset_json(folder, labels=None, channels=("MRI",), scans=6, **more):
    content = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": LABELS if labels is None else labels,
        "numTraining": scans,
        "file_ending": ".nii.gz",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content | more))


def write_scan(folder, number, channels=1, masked=False, scale=1.0):
    for channel in range(channels):
        path = folder / "imagesTr" / f"{name(number)}_{channel:04d}.nii.gz"
        write_image(path, scale * scan_image(number, masked) + channel * 7, scan_spacing(number))


def write_labels(folder, number, planes=FIRST_PLANES, labels=None):
    """Labels of some planes; planes=None means all of the scan."""
    labels = scan_labels(number) if labels is None else labels
    if planes is not None:
        labels = keep_planes(labels, planes, IGNORE)
    write_image(folder / "labelsTr" / f"{name(number)}.nii.gz", labels, scan_spacing(number))


def write_raw(folder, scans=6, labelled=(0, 1, 2), labels=None, channels=("MRI",), masked=False, scale=1.0):
    """A data set without ignore label in dataset.json if labels is None, although its label files hold one.

    So a test has to say which it wants: SPARSE_LABELS for a usual sparse data set.
    """
    write_dataset_json(folder, labels, channels, scans)
    for number in range(scans):
        write_scan(folder, number, len(channels), masked, scale)
        if number in labelled:
            write_labels(folder, number)
    return folder


SPARSE_LABELS = LABELS | {"ignore": IGNORE}


def snapshot(*folders):
    """Content of every file and every folder's existence, to show that nothing has changed."""
    content = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            content[path] = path.read_bytes() if path.is_file() else None
    return content


def stamps(folder):
    """Time of change of every file, to show which were written."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def write_truth(folder):
    """labelsTr_dense for a simulated expert: the brightest fifth of each scan is class 1."""
    raw = RawFolder(folder)
    (folder / "labelsTr_dense").mkdir()
    for identifier in raw.scans():
        image, properties = raw.read_image(identifier)
        dense = (image[0] > np.percentile(image[0], 80)).astype(np.uint8)
        raw.write_labels(dense, raw.label_path(identifier, "labelsTr_dense"), properties)
