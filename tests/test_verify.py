"""Bad input: an error that names file, value and cure, and every file as it was."""

import errno
import json
import shutil

import numpy as np
import pytest
from raw_data import (
    DIRECTION,
    LABELS,
    ORIGIN,
    SPARSE_LABELS,
    name,
    scan_image,
    scan_labels,
    scan_shape,
    scan_spacing,
    snapshot,
    write_dataset_json,
    write_image,
    write_labels,
    write_raw,
    write_scan,
)

from nnunet_gmabs.data import unlabelled
from nnunet_gmabs.data.prepare import PrepareOptions, prepare
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import only_one


@pytest.fixture
def raw(nnunet_folders):
    return write_raw(nnunet_folders["nnUNet_raw"] / "Dataset001_Tiny", labels=SPARSE_LABELS)


def prepare_tiny(say=lambda text: None, **options):
    return prepare(PrepareOptions("1", processes=1, **options), say)


def label_path(raw, number):
    return raw / "labelsTr" / f"{name(number)}.nii.gz"


def image_path(raw, number, channel=0):
    return raw / "imagesTr" / f"{name(number)}_{channel:04d}.nii.gz"


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])


def labels_with(value, dtype=np.float32):
    labels = scan_labels(1).astype(dtype)
    labels[0, 0, 0] = value
    return labels


def image_with(value):
    image = scan_image(1)
    image[0, 0, 0] = value
    return image


def write_splits(folder, train, val):
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": [name(n) for n in train], "val": [name(n) for n in val]}])
    )


SPACING_1 = scan_spacing(1)
BAD_INPUT = {
    "label of another shape": (
        lambda raw: write_image(label_path(raw, 1), scan_labels(1)[1:], SPACING_1),
        r"scan_01.nii.gz: has shape \(12, 16, 19\), but .*scan_01_0000.nii.gz has \(13, 16, 19\); export it on",
    ),
    "label of another spacing": (
        lambda raw: write_image(label_path(raw, 1), scan_labels(1), (2.0, 1.05, 1.1)),
        r"scan_01.nii.gz: has spacing \[2.0, 1.05, 1.1\], but .* has \[1.1, 1.05, 1.1\]",
    ),
    "label of another origin": (
        lambda raw: write_image(label_path(raw, 1), scan_labels(1), SPACING_1, origin=(10.5, -20.0, 30.0)),
        r"scan_01.nii.gz: has origin \[10.5, -20.0, 30.0\], but .* has \[10.0",
    ),
    "label of another origin for nibabel": (
        lambda raw: (
            write_dataset_json(raw, SPARSE_LABELS, overwrite_image_reader_writer="NibabelIO"),
            write_image(label_path(raw, 1), scan_labels(1), SPACING_1, origin=(10.5, -20.0, 30.0)),
        ),
        r"scan_01.nii.gz: has origin \[-10.5, 20.0, 30.0\], but .* has \[-10.0",
    ),
    "label of another direction": (
        lambda raw: write_image(label_path(raw, 1), scan_labels(1), SPACING_1, direction=np.eye(3).ravel().tolist()),
        r"scan_01.nii.gz: has direction .* or copy the image's header",
    ),
    "unknown label": (
        lambda raw: write_image(label_path(raw, 1), labels_with(7), SPACING_1),
        r"scan_01.nii.gz: holds \[7\], but dataset.json knows \[0, 1, 2, 3\]; correct the file or dataset.json",
    ),
    "ignore label that dataset.json does not declare": (
        lambda raw: write_dataset_json(raw, LABELS),
        r'scan_00.nii.gz: holds \[3\].* or add "ignore": 3 there if it means not labelled',
    ),
    "label that is no integer": (
        lambda raw: write_image(label_path(raw, 1), labels_with(0.5), SPACING_1),
        r"scan_01.nii.gz: holds 0.5, which is no integer; .* nearest-neighbour",
    ),
    "label that is not a number": (
        lambda raw: write_image(label_path(raw, 1), labels_with(np.nan), SPACING_1),
        r"scan_01.nii.gz: holds NaN",
    ),
    "image that is not a number": (
        lambda raw: (
            write_dataset_json(raw, SPARSE_LABELS, overwrite_image_reader_writer="NibabelIO"),
            write_image(image_path(raw, 1), image_with(np.nan), SPACING_1),
        ),
        r"scan_01_0000.nii.gz: holds NaN or infinite values",
    ),
    "empty image": (
        lambda raw: write_image(image_path(raw, 1), 0 * scan_image(1), SPACING_1),
        r"scan_01_0000.nii.gz: is 0 everywhere",
    ),
    "ignore label that is not the highest": (
        lambda raw: write_dataset_json(raw, {"background": 0, "left": 1, "ignore": 2, "right": 3}),
        r'dataset.json: "ignore" is 2, but the highest label is 3',
    ),
    "ignore label that is also a class": (
        lambda raw: write_dataset_json(raw, LABELS | {"third": 3, "ignore": 3}),
        r'dataset.json: "ignore" and "third" have the same value 3',
    ),
    "labels with a gap": (
        lambda raw: write_dataset_json(raw, {"background": 0, "left": 1, "right": 3}),
        r"dataset.json: labels must be 0, 1, 2, ... without gaps, but \[2\] are missing",
    ),
    "ignore label with a gap below": (
        lambda raw: write_dataset_json(raw, {"background": 0, "left": 1, "right": 2, "ignore": 255}),
        r'dataset.json: "ignore" is 255, but must be 3, .*change it there and in the label files',
    ),
    "more labels than a byte holds": (
        lambda raw: write_dataset_json(raw, {"background": 0} | {f"part {n}": n for n in range(1, 256)}),
        r"dataset.json: the highest label is 255, but .* 254 is the most",
    ),
    "labels of nnU-Net v1": (
        lambda raw: write_dataset_json(raw, {"0": "background", "1": "left"}),
        r'dataset.json: .*"background": 0',
    ),
    "regions without an order": (
        lambda raw: write_dataset_json(raw, {"background": 0, "both": [1, 2], "right": 2, "ignore": 3}),
        r'dataset.json: regions need "regions_class_order"',
    ),
    "regions with an order of other values": (
        lambda raw: write_dataset_json(
            raw, {"background": 0, "both": [1, 2], "right": 2, "ignore": 3}, regions_class_order=[1, 3]
        ),
        r'dataset.json: "regions_class_order" holds 3, which is no label \(\[1, 2\]\) but would be predicted',
    ),
    "label value in quotes": (
        lambda raw: write_dataset_json(
            raw, {"background": 0, "both": [1, "2"], "right": 2, "ignore": 3}, regions_class_order=[1, 2]
        ),
        r"dataset.json: the value of 'both' holds '2'; write an integer, without quotes",
    ),
    "no dataset.json": (lambda raw: (raw / "dataset.json").unlink(), r"dataset.json is missing"),
    "broken dataset.json": (lambda raw: cut(raw / "dataset.json"), r"dataset.json: not usable"),
    "no label file": (
        lambda raw: shutil.rmtree(raw / "labelsTr"),
        r"labelsTr: no scan has a label; draw at least one plane",
    ),
    "label files without a label": (
        lambda raw: [write_labels(raw, number, []) for number in range(3)],
        r"labelsTr: no scan has a label",
    ),
    "nothing but background": (
        lambda raw: [write_labels(raw, number, [(0, 0)]) for number in range(3)],
        r"labelsTr: all labels are background",
    ),
    "truncated image": (lambda raw: cut(image_path(raw, 1)), r"scan_01_0000.nii.gz: truncated or damaged"),
    "truncated label": (lambda raw: cut(label_path(raw, 1)), r"scan_01.nii.gz: truncated or damaged .*copy or export"),
    "no image at all": (
        lambda raw: image_path(raw, 1).write_bytes(b""),
        r"scan_01_0000.nii.gz: (cannot be read|no reader)",
    ),
    "the same scan under two names": (
        lambda raw: shutil.copy(image_path(raw, 1), image_path(raw, 7)),
        r"scan_01 and scan_07 are the same scan",
    ),
    "note of macOS beside an image": (
        lambda raw: (raw / "imagesTr" / "._scan_01_0000.nii.gz").write_bytes(b"\0\5\x16\7"),
        r"\._scan_01_0000.nii.gz: a note of macOS, .*find '.*imagesTr' -name '\._\*' -delete",
    ),
    "note of macOS beside a label": (
        lambda raw: (raw / "labelsTr" / "._scan_01.nii.gz").write_bytes(b"\0\5\x16\7"),
        r"\._scan_01.nii.gz: a note of macOS",
    ),
    "the same scan with two endings": (
        lambda raw: write_image(raw / "imagesTr" / f"{name(1)}_0000.nrrd", scan_image(1), SPACING_1),
        r"scan_01_0000.nrrd: the same scan is there as scan_01_0000.nii.gz; remove one",
    ),
    "the same label with two endings": (
        lambda raw: write_image(raw / "labelsTr" / f"{name(1)}.nrrd", scan_labels(1), SPACING_1),
        r"scan_01.nrrd: the same scan is there as scan_01.nii.gz",
    ),
    "names that differ in case only": (
        lambda raw: shutil.copy(image_path(raw, 1), raw / "imagesTr" / "SCAN_01_0000.nii.gz"),
        r"SCAN_01_0000 and scan_01_0000 name the same",
    ),
    "image with another ending": (
        lambda raw: write_image(raw / "imagesTr" / "other_0000.nrrd", scan_image(7), SPACING_1),
        r"other_0000.nrrd: ends with .nrrd, but file_ending in dataset.json is .nii.gz",
    ),
    "image with an ending in upper case": (
        lambda raw: image_path(raw, 1).rename(raw / "imagesTr" / "scan_01_0000.NII.GZ"),
        r"scan_01_0000.NII.GZ: ends with .NII.GZ, but file_ending in dataset.json is .nii.gz, so nnU-Net would",
    ),
    "label with an ending in upper case": (
        lambda raw: label_path(raw, 1).rename(raw / "labelsTr" / "scan_01.Nii.Gz"),
        r"scan_01.Nii.Gz: ends with .Nii.Gz, but file_ending in dataset.json is .nii.gz, .*overlook it; rename it",
    ),
    "the same label with an ending in upper case": (
        lambda raw: shutil.copy(label_path(raw, 1), raw / "labelsTr" / "scan_01.NII.GZ"),
        r"scan_01.NII.GZ: the same scan is there as scan_01.nii.gz; remove one",
    ),
    "label of MetaImage": (
        lambda raw: write_image(raw / "labelsTr" / "scan_04.mhd", scan_labels(4), scan_spacing(4)),
        r"scan_04.mhd: ends with .mhd, but file_ending in dataset.json is .nii.gz, .*overlook it; convert or remove it",
    ),
    "missing channel": (
        lambda raw: write_dataset_json(raw, SPARSE_LABELS, ("T1", "T2")),
        r"scan_00 has 1 channels \(scan_00_0000.nii.gz\), but dataset.json names 2",
    ),
    "missing first channel": (
        lambda raw: image_path(raw, 1).rename(image_path(raw, 1, 1)),
        r"scan_01_0001.nii.gz: channel 0 of scan_01 is missing",
    ),
    "channels on different grids": (
        lambda raw: (
            write_dataset_json(raw, SPARSE_LABELS, ("T1", "T2")),
            [write_image(image_path(raw, n, 1), scan_image(n)[:, 1:], scan_spacing(n)) for n in range(6)],
        ),
        r"scan_00_0001.nii.gz: has shape \(12, 14, 18\), but .*scan_00_0000.nii.gz has",
    ),
    "image without a channel number": (
        lambda raw: image_path(raw, 1).rename(raw / "imagesTr" / "scan.nii.gz"),
        r"scan.nii.gz: the name does not end with a channel number; call it scan_0000.nii.gz",
    ),
    "label without an image": (
        lambda raw: image_path(raw, 1).unlink(),
        r"scan_01.nii.gz: there is no image scan_01_0000.nii.gz in imagesTr",
    ),
    "link to an image that is not there": (
        lambda raw: (raw / "imagesTr" / "scan_09_0000.nii.gz").symlink_to("/away/scan_09_0000.nii.gz"),
        r"scan_09_0000.nii.gz: is a link to a file that is not there; fetch that file, or remove the link",
    ),
    "name that nnU-Net overlooks": (
        lambda raw: shutil.copy(image_path(raw, 1), raw / "imagesTr" / "scan_seg_0000.nii.gz"),
        r"scan_seg_0000.nii.gz: nnU-Net overlooks scans whose name ends with _seg",
    ),
    "unlabelled scan for validation": (
        lambda raw: write_splits(raw, [0, 1], [2, 4]),
        r"splits_final.json: fold 0 lists scan_04 for validation, but it is unlabelled",
    ),
    "unknown scan in the splits": (
        lambda raw: write_splits(raw, [0, 1, 9], [2]),
        r"splits_final.json: fold 0 lists scan_09 under train, but imagesTr holds no such scan",
    ),
    "empty fold": (lambda raw: write_splits(raw, [0, 1, 2], []), r'splits_final.json: fold 0 has an empty "train"'),
    "broken splits": (
        lambda raw: (raw / "splits_final.json").write_text('[{"val": []}]'),
        r"splits_final.json: not usable",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named_with_its_cure_and_nothing_is_changed(raw, nnunet_folders, case):
    break_it, message = BAD_INPUT[case]
    break_it(raw)
    before = snapshot(*nnunet_folders.values())
    with pytest.raises(InputError, match=message):
        prepare_tiny()
    assert snapshot(*nnunet_folders.values()) == before


def test_all_wrong_files_are_named_at_once(raw):
    for number in (0, 2):
        cut(label_path(raw, number))
    with pytest.raises(InputError, match=r"(?s)scan_00.nii.gz: truncated.*scan_02.nii.gz: truncated"):
        prepare_tiny()


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_truncated_files_without_compression_are_named(nnunet_folders, folder):
    raw = nnunet_folders["nnUNet_raw"] / "Dataset001_Tiny"
    write_dataset_json(raw, SPARSE_LABELS, scans=1, file_ending=".nii")
    write_image(raw / "imagesTr" / "scan_01_0000.nii", scan_image(1), SPACING_1)
    write_image(raw / "labelsTr" / "scan_01.nii", scan_labels(1), SPACING_1)
    path = next((raw / folder).iterdir())
    cut(path)
    with pytest.raises(InputError, match=rf"{path.name}: truncated or damaged .*; copy or export it again"):
        prepare_tiny()


def test_rounding_in_headers_is_no_difference(raw):
    origin = [value + 1e-4 for value in ORIGIN]
    direction = [value + 1e-6 for value in DIRECTION]
    write_image(label_path(raw, 0), scan_labels(0), scan_spacing(0), origin, direction)
    write_splits(raw, [0, 1], [4])  # ends the run after everything has been read
    with pytest.raises(InputError, match="lists scan_04 for validation"):
        prepare_tiny()


def test_a_class_that_is_labelled_nowhere_is_named(raw):
    write_dataset_json(raw, {"background": 0, "left": 1, "right": 2, "third": 3, "ignore": 4})
    for number in range(3):
        labels = scan_labels(number)
        labels[labels == 1] = 2
        labels[0, 0, 0] = 4
        write_labels(raw, number, None, labels)
    write_splits(raw, [0, 1], [4])  # ends the run
    said = []
    with pytest.raises(InputError, match="lists scan_04 for validation"):
        prepare_tiny(said.append)
    assert [text for text in said if "warning" in text] == [
        "warning: class left (1) is labelled in no scan, so it cannot be learned",
        "warning: class third (3) is labelled in no scan, so it cannot be learned",
    ]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_unset_variables_are_named(raw, monkeypatch, variable):
    monkeypatch.delenv(variable)
    with pytest.raises(InputError, match=f"{variable} is not set; set it to"):
        prepare_tiny()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner": "NoSuchPlanner"}, "-pl NoSuchPlanner: nnU-Net has no planner"),
        ({"cpu_seconds": 0.0}, "--cpu-seconds 0.0: must be at least"),
    ],
)
def test_wrong_options_are_named(raw, options, message):
    with pytest.raises(InputError, match=message):
        prepare_tiny(**options)


def test_wrong_number_of_processes_and_unknown_data_set_are_named(raw):
    with pytest.raises(InputError, match="-np 0: must be 1 or more"):
        prepare(PrepareOptions("1", processes=0))
    with pytest.raises(InputError, match="Dataset002"):
        prepare(PrepareOptions("2"))


def test_a_second_run_beside_the_first_is_refused(raw, nnunet_folders):
    pre = nnunet_folders["nnUNet_preprocessed"] / "Dataset001_Tiny"
    pre.mkdir()
    with only_one(pre / ".gmabs_prepare.lock", "the first"):
        with pytest.raises(InputError, match="gmabs prepare for Dataset001_Tiny is running already"):
            prepare_tiny()
    with only_one(pre / ".gmabs_prepare.lock", "the next"):
        pass
    assert not list(pre.iterdir())


def test_a_data_set_that_is_linked_into_nnunet_raw_is_under_it(raw, tmp_path):
    raw.rename(tmp_path / "elsewhere")
    raw.symlink_to(tmp_path / "elsewhere")
    write_splits(raw, [0, 1], [4])  # ends the run after everything has been read
    with pytest.raises(InputError, match="lists scan_04 for validation"):
        prepare_tiny()
    with pytest.raises(InputError, match="not under nnUNet_raw"):
        prepare(PrepareOptions(str(tmp_path / "elsewhere"), processes=1))


def fail_with(number):
    def write_json(path, value):
        raise OSError(number, errno.errorcode[number], str(path))

    return write_json


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "make room"), (errno.EROFS, "writable"), (errno.EACCES, "writable")]
)
def test_a_disk_that_fails_after_files_were_made_leaves_everything_as_it_was(
    raw, nnunet_folders, monkeypatch, number, message
):
    write_dataset_json(raw, LABELS)
    for scan in range(3):
        write_labels(raw, scan, None)
    before = snapshot(*nnunet_folders.values())
    made = []
    original = unlabelled.write_json

    def fail_after_labels(path, value):
        if path.name == "made_labels.json":
            made.extend(raw.glob("labelsTr/scan_0[345]*"))
            fail_with(number)(path, value)
        original(path, value)

    monkeypatch.setattr(unlabelled, "write_json", fail_after_labels)
    with pytest.raises(InputError, match=rf"made_labels.json: .*{message}"):
        prepare_tiny()
    assert len(made) == 3
    assert snapshot(*nnunet_folders.values()) == before


def test_what_nnunets_own_verification_refuses_leaves_everything_as_it_was(raw, nnunet_folders, monkeypatch):
    from nnunetv2.experiment_planning import verify_dataset_integrity as module

    def refuse(*_):
        raise RuntimeError("not to my taste")

    monkeypatch.setattr(module, "verify_dataset_integrity", refuse)
    before = snapshot(*nnunet_folders.values())
    with pytest.raises(InputError, match="nnU-Net's verification fails: not to my taste"):
        prepare_tiny()
    assert snapshot(*nnunet_folders.values()) == before


def test_scans_may_differ_in_shape_and_spacing(raw):
    assert len({scan_shape(number) for number in range(6)}) == 6
    assert len({scan_spacing(number) for number in range(6)}) == 6
    write_scan(raw, 6)
