"""A data set is found by ID, name or path, wherever a command is run."""

import pytest
import raw_data

from nnunet_gmabs.annotation.raw_folder import find_raw_folder
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
