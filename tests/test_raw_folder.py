"""A data set is found by ID, name or path, wherever a command is run; an image file holds one channel."""

import json
import os

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
from nnunet_gmabs.errors import InputError

NAME = "Dataset004_Boxes"


@pytest.fixture
def data_set(nnunet_folders):
    folder = nnunet_folders["nnUNet_raw"] / NAME
    raw_data.write_dataset_json(folder)
    return folder


@pytest.mark.parametrize("name", ["4", "004", NAME])
def test_an_id_and_a_name_mean_the_folder_in_nnunet_raw_wherever_one_is(data_set, nnunet_folders, monkeypatch, name):
    prepared = nnunet_folders["nnUNet_preprocessed"]
    (prepared / NAME).mkdir(parents=True)
    for place in (prepared, prepared / NAME, data_set.parent):
        monkeypatch.chdir(place)
        assert find_raw_folder(name) == data_set


@pytest.mark.parametrize(("place", "path"), [(".", "."), ("imagesTr", ".."), ("imagesTr", f"../../{NAME}/")])
def test_a_relative_path_means_a_folder_that_has_a_name(data_set, monkeypatch, place, path):
    (data_set / "imagesTr").mkdir()
    monkeypatch.chdir(data_set / place)
    assert find_raw_folder(path) == data_set


def test_a_name_that_is_not_in_nnunet_raw_may_be_a_folder_here(nnunet_folders, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere" / NAME
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere.parent)
    assert find_raw_folder(NAME) == elsewhere
    monkeypatch.delenv("nnUNet_raw")
    assert find_raw_folder(NAME) == elsewhere
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        find_raw_folder("Dataset005_Other")


def test_a_name_that_is_nowhere_is_refused(data_set):
    with pytest.raises(InputError, match=r"Dataset005_Other: no folder Dataset005_Other in .*which data set"):
        find_raw_folder("Dataset005_Other")


@pytest.mark.parametrize("command", [["prepare", "-np", "1"], ["ask", "--scans", "1"]])
def test_all_channels_in_one_file_are_refused_with_their_shape_and_the_cure(data_set, capsys, command):
    raw_data.write_dataset_json(data_set, raw_data.SPARSE_LABELS, ("T1", "T2"), scans=2)
    raw_data.write_labels(data_set, 0)
    for number in range(2):
        both = np.stack([raw_data.scan_image(number), raw_data.scan_image(number) + 5])
        path = data_set / "imagesTr" / f"{raw_data.name(number)}_0000.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(both, isVector=False), str(path))
    assert cli.main([*command, "-d", "4"]) == 2
    said = capsys.readouterr().err
    assert "_0000.nii.gz: has 4 axes, as if all channels of shape (1" in said
    assert "were in it; write each channel to a file of its own, ..._0000.nii.gz, ..._0001.nii.gz" in said


def test_channels_of_different_shape_are_refused_by_the_name_of_their_scan(data_set):
    """nnU-Net raises a RuntimeError without a word."""
    raw_data.write_dataset_json(data_set, channels=("T1", "T2"), scans=1)
    for channel, image in enumerate((raw_data.scan_image(0), raw_data.scan_image(0)[:, :, 1:])):
        raw_data.write_image(data_set / "imagesTr" / f"scan_00_{channel:04d}.nii.gz", image)
    with pytest.raises(InputError, match=r"scan_00_0000.nii.gz: cannot be read \(RuntimeError\)"):
        RawFolder(data_set).read_image("scan_00")


def test_the_users_first_dataset_json_is_kept_whole_or_not_at_all(data_set, monkeypatch):
    raw, first = RawFolder(data_set), (data_set / "dataset.json").read_bytes()
    (data_set / "gmabs").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            raw.replace_dataset_json({"labels": {}})
    assert list((data_set / "gmabs").iterdir()) == [] and (data_set / "dataset.json").read_bytes() == first
    for content in ({"labels": {"a": 1}}, {"labels": {"b": 1}}):
        raw.replace_dataset_json(content)
        assert json.loads((data_set / "dataset.json").read_text()) == content
    assert raw.dataset_json_backup.read_bytes() == first


def test_a_note_of_macos_is_no_scan_for_any_command(data_set):
    (data_set / "imagesTr").mkdir()
    for name in ("scan_00_0000.nii.gz", "._scan_00_0000.nii.gz"):
        (data_set / "imagesTr" / name).touch()
    with pytest.raises(InputError, match=r"imagesTr/\._scan_00_0000.nii.gz: a note of macOS"):
        RawFolder(data_set).scans()


def test_an_ending_without_its_dot_is_refused(data_set):
    path = data_set / "dataset.json"
    path.write_text(path.read_text().replace('".nii.gz"', '"nii.gz"'))
    with pytest.raises(InputError, match=r"dataset.json: file_ending is 'nii.gz'; it begins with a dot"):
        RawFolder(data_set)
