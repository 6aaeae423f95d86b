import json

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk

from nnunet_gmabs.annotation.import_labels import apply_import, find_drawn_planes, plan_import, read_plane_list
from nnunet_gmabs.annotation.journal import changing
from nnunet_gmabs.annotation.planes import plane_mask
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.cli import main
from nnunet_gmabs.errors import InputError

PLANES = raw_data.FIRST_PLANES


def as_drawn_in_an_editor(number, planes=PLANES):
    """Labels of some planes, 0 everywhere else."""
    labels = raw_data.scan_labels(number)
    return np.where(plane_mask(labels.shape, planes), labels, 0).astype(np.uint8)


def write_editor_labels(folder, number, labels):
    path = folder / "labelsTr" / f"{raw_data.name(number)}.nii.gz"
    raw_data.write_image(path, labels, raw_data.scan_spacing(number))


def read(folder, number):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / f"{raw_data.name(number)}.nii.gz")))


@pytest.fixture
def data_set(nnunet_folders):
    """Two scans drawn on three planes each, one that was never opened, and one without a file."""
    folder = nnunet_folders["nnUNet_raw"] / "Dataset004_Boxes"
    raw_data.write_dataset_json(folder, raw_data.LABELS, scans=4)
    for number in range(4):
        raw_data.write_scan(folder, number)
    write_editor_labels(folder, 0, as_drawn_in_an_editor(0))
    write_editor_labels(folder, 1, as_drawn_in_an_editor(1, [(0, 5), (2, 7)]))
    write_editor_labels(folder, 2, np.zeros(raw_data.scan_shape(2), np.uint8))
    return folder


def test_three_crossing_planes_are_found():
    labels = as_drawn_in_an_editor(0)

    assert find_drawn_planes(labels) == PLANES


def test_planes_of_one_axis_are_found():
    labels = as_drawn_in_an_editor(0, [(1, 6), (1, 9)])

    assert find_drawn_planes(labels) == [(1, 6), (1, 9)]


def test_nothing_labelled_means_nothing_drawn():
    assert find_drawn_planes(np.zeros((5, 6, 7), int)) == []


def test_the_one_plane_of_a_2d_image_is_found():
    labels = np.zeros((1, 6, 7), int)
    labels[0, 2:5, 3:5] = 1

    assert find_drawn_planes(labels) == [(0, 0)]


def test_dense_labels_are_refused():
    with pytest.raises(ValueError, match=r"solid of 2 x 2 x 2 voxels at \(4, 5, 6\)"):
        find_drawn_planes(raw_data.scan_labels(0))


def test_a_line_of_voxels_does_not_tell_its_plane():
    labels = np.zeros((5, 6, 7), int)
    labels[2, 3, 1:5] = 1

    with pytest.raises(ValueError, match="4 labelled voxels near .2, 3, 1. lie on a line"):
        find_drawn_planes(labels)


def test_a_stray_voxel_beside_a_drawn_plane_is_refused():
    labels = np.zeros((5, 6, 7), int)
    labels[2, 1:4, 1:5] = 1
    labels[4, 5, 6] = 1

    with pytest.raises(ValueError, match="1 labelled voxels near .4, 5, 6."):
        find_drawn_planes(labels)


def test_without_yes_nothing_changes(data_set, capsys):
    before = raw_data.snapshot(data_set)

    assert main(["import", "-d", "4", "--planes", "auto"]) == 1

    assert raw_data.snapshot(data_set) == before
    printed = capsys.readouterr().out
    assert "scan_00: axis 0 index 6, axis 1 index 8, axis 2 index 9; " in printed
    assert "scan_02: nothing drawn, becomes an unlabelled scan; 0 labelled voxels" in printed
    assert "--yes" in printed


def test_zeros_on_drawn_planes_stay_background_and_all_others_become_ignore(data_set):
    assert main(["import", "-d", "4", "--planes", "auto", "--yes"]) == 0

    for number, planes in ((0, PLANES), (1, [(0, 5), (2, 7)]), (2, [])):
        dense = raw_data.scan_labels(number)
        expected = np.where(plane_mask(dense.shape, planes), dense, raw_data.IGNORE)
        np.testing.assert_array_equal(read(data_set, number), expected)
    assert json.loads((data_set / "dataset.json").read_text())["labels"] == raw_data.SPARSE_LABELS


def test_geometry_of_the_label_file_is_kept(data_set):
    path = data_set / "labelsTr" / "scan_00.nii.gz"
    before = sitk.ReadImage(str(path))

    main(["import", "-d", "4", "--planes", "auto", "--yes"])

    after = sitk.ReadImage(str(path))
    for get in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        assert getattr(after, get)() == getattr(before, get)()


def test_the_files_as_they_were_are_kept(data_set):
    before = {path.name: path.read_bytes() for path in (data_set / "labelsTr").iterdir()}
    dataset_json = (data_set / "dataset.json").read_bytes()

    main(["import", "-d", "4", "--planes", "auto", "--yes"])

    backup = data_set / "gmabs" / "backup" / "import_001"
    assert {path.name: path.read_bytes() for path in (backup / "labelsTr").iterdir()} == before
    assert (backup / "dataset.json").read_bytes() == dataset_json


def test_a_second_import_changes_nothing(data_set):
    main(["import", "-d", "4", "--planes", "auto", "--yes"])
    before = raw_data.snapshot(data_set)

    assert main(["import", "-d", "4", "--planes", "auto", "--yes"]) == 0

    assert raw_data.snapshot(data_set) == before


def test_labels_that_came_in_later_are_imported_alone(data_set):
    main(["import", "-d", "4", "--planes", "auto", "--yes"])
    first = (data_set / "labelsTr" / "scan_00.nii.gz").read_bytes()
    write_editor_labels(data_set, 3, as_drawn_in_an_editor(3))

    main(["import", "-d", "4", "--planes", "auto", "--yes"])

    assert (data_set / "labelsTr" / "scan_00.nii.gz").read_bytes() == first
    assert (read(data_set, 3) == raw_data.IGNORE).any()
    assert [path.name for path in (data_set / "gmabs" / "backup" / "import_002" / "labelsTr").iterdir()] == [
        "scan_03.nii.gz"
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (raw_data.LABELS | {"ignore": 255}, '"ignore" is 255, but must be 3'),
        ({"0": "background", "1": "left", "2": "right"}, "write names first and values second"),
        (raw_data.LABELS | {"ignore": 4}, '"ignore" is 4, but must be 3'),
        ({"background": 0, "left": 1, "right": 3}, r"without gaps, but [2] are missing"),
    ],
)
def test_no_label_file_is_changed_by_a_dataset_json_that_prepare_refuses(labels, message, data_set, capsys):
    raw_data.write_dataset_json(data_set, labels, scans=4)
    before = raw_data.snapshot(data_set)

    assert main(["import", "-d", "4", "--planes", "auto", "--yes"]) == 2

    assert f"{data_set / 'dataset.json'}: " in (said := capsys.readouterr().err) and message in said
    assert raw_data.snapshot(data_set) == before


def test_a_class_that_dataset_json_lacks_is_not_taken_for_the_ignore_label(data_set, capsys):
    labels = as_drawn_in_an_editor(1)
    write_editor_labels(data_set, 1, np.where(labels == 2, 3, labels))
    before = raw_data.snapshot(data_set)

    assert main(["import", "-d", "4", "--planes", "auto", "--yes"]) == 2

    assert "scan_01.nii.gz: holds 3, which dataset.json does not know ([0, 1, 2])" in capsys.readouterr().err
    assert raw_data.snapshot(data_set) == before


def test_dense_labels_are_refused_and_nothing_changes(data_set, capsys):
    write_editor_labels(data_set, 3, raw_data.scan_labels(3))
    before = raw_data.snapshot(data_set)

    assert main(["import", "-d", "4", "--planes", "auto", "--yes"]) == 2

    assert raw_data.snapshot(data_set) == before
    message = capsys.readouterr().err
    assert "scan_03.nii.gz" in message and "scan_03: [[axis, index], ...]" in message


def test_a_list_says_more_than_labels_can(data_set, tmp_path):
    """A drawn plane without labels, a scan drawn completely, and one left to be found."""
    write_editor_labels(data_set, 3, raw_data.scan_labels(3))
    planes = tmp_path / "planes.yaml"
    planes.write_text("scan_00: [[0, 6], [1, 8], [2, 9], [0, 0]]\nscan_01: auto\nscan_02: [[1, 2]]\nscan_03: all\n")

    assert main(["import", "-d", "4", "--planes", str(planes), "--yes"]) == 0

    assert (read(data_set, 0)[0] == 0).all()
    assert (read(data_set, 2) == 0).sum() == raw_data.scan_shape(2)[0] * raw_data.scan_shape(2)[2]
    np.testing.assert_array_equal(read(data_set, 3), raw_data.scan_labels(3))


def test_the_list_may_be_json(tmp_path):
    path = tmp_path / "planes.json"
    path.write_text(json.dumps({"scan_1": [[0, 20], [2, 18]]}))

    assert read_plane_list(path) == {"scan_1": [[0, 20], [2, 18]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "one entry for each scan"),
        ("scan_1: [0, 20]\n", "scan_1: .0, 20. is no list of planes"),
        ("scan_1: [[3, 20]]\n", "axis 0, 1 or 2"),
        ("scan_1: [[0, -1]]\n", "is no list of planes"),
        ("scan_1: [[0, 1.5]]\n", "is no list of planes"),
        ("scan_1: some\n", "is no list of planes"),
        ("{", "neither YAML nor JSON"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path, text, message):
    path = tmp_path / "planes.yaml"
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        read_plane_list(path)


def test_labels_outside_the_listed_planes_are_refused(data_set):
    """As when the axes were counted in the viewer's order."""
    listed = {"scan_00": [[2, 6], [1, 8], [0, 9]], "scan_01": "auto", "scan_02": "auto"}

    with pytest.raises(InputError, match="scan_00.*labelled voxels are on none of the listed planes.*nnU-Net's order"):
        plan_import(RawFolder(data_set), listed)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"scan_00": "auto", "scan_01": "auto"}, "says nothing about scan_02"),
        ({"scan_00": "auto", "scan_01": "auto", "scan_02": "auto", "scan_03": "all"}, "names scan_03"),
        ({"scan_00": [[0, 12]], "scan_01": "auto", "scan_02": "auto"}, r"index outside 0\.\.11"),
    ],
)
def test_a_list_that_does_not_fit_the_files_is_refused(data_set, listed, message):
    with pytest.raises(InputError, match=message):
        plan_import(RawFolder(data_set), listed)


def test_what_is_drawn_while_it_looks_is_not_taken_for_not_drawn(data_set):
    raw = RawFolder(data_set)
    plan = plan_import(raw, None)
    write_editor_labels(data_set, 1, as_drawn_in_an_editor(1))
    before = [path.read_bytes() for path in (*sorted(data_set.glob("labelsTr/*")), data_set / "dataset.json")]
    with pytest.raises(InputError, match="scan_01.nii.gz: was saved since gmabs import looked at it; run it again"):
        apply_import(raw, plan)
    assert before == [path.read_bytes() for path in (*sorted(data_set.glob("labelsTr/*")), data_set / "dataset.json")]
    apply_import(raw, plan_import(raw, None))
    with pytest.raises(InputError, match=r"dataset.json: was saved since"):
        apply_import(raw, plan)


def test_no_file_is_turned_while_another_command_changes_labels(data_set):
    raw = RawFolder(data_set)
    plan = plan_import(raw, None)
    with changing(data_set), pytest.raises(InputError, match="another gmabs command that changes .* is running"):
        apply_import(raw, plan)
    assert read(data_set, 0).max() == 2


def test_a_failure_on_the_way_leaves_everything_as_it_was(data_set, monkeypatch):
    raw = RawFolder(data_set)
    plan = plan_import(raw, None)
    before = raw_data.snapshot(data_set / "labelsTr")
    write = raw.write_labels

    def fail_on_the_second(labels, path, properties):
        if path.name == "scan_01.nii.gz":
            raise OSError("disk full")
        write(labels, path, properties)

    monkeypatch.setattr(raw, "write_labels", fail_on_the_second)
    with pytest.raises(OSError, match="disk full"):
        apply_import(raw, plan)

    assert raw_data.snapshot(data_set / "labelsTr") == before
    assert "ignore" not in RawFolder(data_set).labels


@pytest.mark.parametrize("number", ["010", "1e3", "0x1F", "yes", "2020-01-02", "1_000", "null"])
def test_scans_are_called_as_they_are_written_whatever_yaml_makes_of_it(tmp_path, number):
    path = tmp_path / "planes.yaml"
    path.write_text(f"{number}: [[0, 6], [1, 08]]\n{number}_b: all\n'{number}_c': [[2, 9]]\n")
    planes = read_plane_list(path)
    assert planes == {number: [[0, 6], [1, 8]], f"{number}_b": "all", f"{number}_c": [[2, 9]]}


def test_an_index_is_a_number_in_decimal_digits(tmp_path):
    path = tmp_path / "planes.yaml"
    for index in ("-1", "0x1F", "1.0", "true", "six", "[6]", "1_0"):
        path.write_text(f"scan: [[0, {index}]]\n")
        with pytest.raises(InputError, match="scan: .* is no list of planes"):
            read_plane_list(path)
