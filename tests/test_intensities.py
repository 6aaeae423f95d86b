"""Intensities where the ignore label would spoil them: CT by the fingerprint, masked MR by the mask; and status."""

import json
import shutil

import blosc2
import numpy as np
import pytest
import raw_data
from raw_data import IGNORE, SPARSE_LABELS, name, scan_image, scan_labels, snapshot, write_dataset_json, write_labels

from nnunet_gmabs.annotation.planes import plane_mask
from nnunet_gmabs.cli import main
from nnunet_gmabs.data.expert import decode, expert_file, read_expert
from nnunet_gmabs.data.planning import load_plans
from nnunet_gmabs.data.prepare import PrepareOptions, prepare
from nnunet_gmabs.data.record import require_prepared_where_it_matters
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow

DATASET = "Dataset001_Tiny"
FOLDER = "nnUNetPlans_3d_fullres"
REGIONS = {"background": 0, "both": [1, 2], "right": 2, "ignore": IGNORE}
PLANES = [(0, 6), (0, 3), (1, 8), (2, 9), (0, 0)]  # (0, 0) is outside the non-zero box of masked scans


def run(**options):
    return prepare(PrepareOptions("1", ("3d_fullres",), processes=1, **options), lambda text: None)


def make_folders(root, patch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir()
        patch.setenv(variable, str(root / variable))
    return root / "nnUNet_raw" / DATASET


@pytest.fixture(scope="module")
def ct_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("ct")
    with pytest.MonkeyPatch.context() as patch:
        raw = raw_data.write_raw(make_folders(root, patch), 4, (0, 1, 2), SPARSE_LABELS, ("CT",))
        for number in range(3):
            write_labels(raw, number, PLANES)
        run()
    return root


@pytest.fixture(scope="module")
def masked_once(tmp_path_factory):
    """Masked scans with two channels, regions, and thick slices across axis 2, so that nnU-Net transposes."""
    root = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_data, "scan_spacing", lambda number: (1.0 + 0.1 * (number % 4), 1.0, 2.5))
        raw = raw_data.write_raw(make_folders(root, patch), 4, (0, 1), SPARSE_LABELS, ("T1", "T2"), masked=True)
        for number in range(4):
            path = raw / "imagesTr" / f"{name(number)}_0001.nii.gz"
            raw_data.write_image(path, 2 * scan_image(number, masked=True), raw_data.scan_spacing(number))
        for number in range(2):
            write_labels(raw, number, PLANES)
        write_dataset_json(raw, REGIONS, ("T1", "T2"), 4, regions_class_order=[1, 2])
        run()
    return root


def copied(once, folders):
    for variable, folder in folders.items():
        shutil.copytree(once / variable, folder, dirs_exist_ok=True)
    return folders["nnUNet_raw"] / DATASET, folders["nnUNet_preprocessed"] / DATASET


@pytest.fixture
def ct(ct_once, nnunet_folders):
    return copied(ct_once, nnunet_folders)


@pytest.fixture
def masked(masked_once, nnunet_folders):
    return copied(masked_once, nnunet_folders)


def trainer_view(pre):
    plans_manager = load_plans(pre, "nnUNetPlans")
    dataset_json = json.loads((pre / "dataset.json").read_text())
    return pre, plans_manager, plans_manager.get_configuration("3d_fullres"), dataset_json


def test_the_fingerprint_of_ct_holds_drawn_foreground_only(ct):
    _, pre = ct
    found = json.loads((pre / "dataset_fingerprint.json").read_text())["foreground_intensity_properties_per_channel"]
    drawn, with_ignore = [], []
    for number in range(3):
        image, labels = scan_image(number), scan_labels(number)
        on_planes = plane_mask(labels.shape, PLANES)
        drawn.append(image[on_planes & (labels > 0)].mean())
        with_ignore.append(image[~on_planes | (labels > 0)].mean())
    assert found["0"]["mean"] == pytest.approx(np.mean(drawn), abs=0.5)
    assert abs(np.mean(with_ignore) - np.mean(drawn)) > 10  # what stock nnU-Net would find


def test_a_trainer_refuses_ct_that_stock_nnunet_prepared(ct):
    _, pre = ct
    require_prepared_where_it_matters(*trainer_view(pre))
    shutil.rmtree(pre / f"{FOLDER}_gmabs")
    with pytest.raises(
        InputError, match=rf"{FOLDER}: preprocessed by stock nnU-Net, .* Run `gmabs prepare -p nnUNetPlans"
    ):
        require_prepared_where_it_matters(*trainer_view(pre))


def test_a_trainer_refuses_ct_that_was_planned_again_by_stock_nnunet(ct):
    _, pre = ct
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] += 10
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match="preprocessed by stock nnU-Net"):
        require_prepared_where_it_matters(*trainer_view(pre))


def test_plans_with_other_intensities_than_those_of_what_is_drawn_are_named(ct):
    _, pre = ct
    said = []
    prepare(PrepareOptions("1", ("3d_fullres",), processes=1), said.append)
    assert not [line for line in said if "warning" in line]
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["std"] /= 3
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    prepare(PrepareOptions("1", ("3d_fullres",), processes=1), said.append)
    assert sum("nnUNetPlans.json normalises by other intensities" in line for line in said) == 1


def test_a_fingerprint_of_stock_nnunet_is_refused_for_ct_until_replanned(ct):
    raw, pre = ct
    fingerprint = json.loads((pre / "dataset_fingerprint.json").read_text())
    mean = fingerprint["foreground_intensity_properties_per_channel"]["0"]["mean"]
    del fingerprint["gmabs_without_ignore_label"]
    fingerprint["foreground_intensity_properties_per_channel"]["0"]["mean"] -= 50
    (pre / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=r"dataset_fingerprint.json: made by stock nnU-Net.*--replan"):
        run()
    assert snapshot(raw, pre) == before
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] -= 50
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert len(run(replan=True).folders[FOLDER].built) == 0  # the scans were made with the right values
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    assert plans["foreground_intensity_properties_per_channel"]["0"]["mean"] == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize("number", range(4))
def test_masked_scans_are_normalised_as_at_prediction_labelled_or_not(masked, number):
    raw, pre = masked
    _, plans_manager, configuration, dataset_json = trainer_view(pre)
    assert configuration.use_mask_for_norm == [True, True]
    images = [str(raw / "imagesTr" / f"{name(number)}_{channel:04d}.nii.gz") for channel in range(2)]
    preprocessor = configuration.preprocessor_class(verbose=False)
    expected, _, _ = preprocessor.run_case(images, None, plans_manager, configuration, dataset_json)
    data = blosc2.open(urlpath=str(pre / FOLDER / f"{name(number)}.b2nd"), mode="r")[...]
    np.testing.assert_allclose(data, expected, atol=1e-5)
    labels = str(raw / "labelsTr" / f"{name(number)}.nii.gz")
    stock, _, _ = preprocessor.run_case(images, labels, plans_manager, configuration, dataset_json)
    assert np.abs(stock - expected).max() > 0.1  # what stock nnU-Net would train on


def test_masked_data_is_transposed_and_keeps_what_is_drawn_and_unknown_outside_the_mask(masked):
    _, pre = masked
    _, plans_manager, _, _ = trainer_view(pre)
    assert plans_manager.transpose_forward == [2, 0, 1]
    values = read_expert(expert_file(pre, FOLDER, name(0)))[0][...]
    seg = blosc2.open(urlpath=str(pre / FOLDER / f"{name(0)}_seg.b2nd"), mode="r")[...]
    assert ((values < 0) == (seg < 0)).all() and -1 not in values
    assert {-2, -2 - IGNORE} <= set(np.unique(values)) <= {-2, -2 - IGNORE, 0, 1, 2, IGNORE}
    assert (decode(values) == np.where(values == -2, 0, np.where(values == -2 - IGNORE, IGNORE, values))).all()
    unlabelled = read_expert(expert_file(pre, FOLDER, name(3)))[0][...]
    assert set(np.unique(unlabelled)) == {-2 - IGNORE, IGNORE}


def test_a_trainer_refuses_masked_data_after_stock_nnunet_preprocessed_it_again(masked):
    raw, pre = masked
    require_prepared_where_it_matters(*trainer_view(pre))
    _, plans_manager, configuration, dataset_json = trainer_view(pre)
    images = [str(raw / "imagesTr" / f"{name(0)}_{channel:04d}.nii.gz") for channel in range(2)]
    configuration.preprocessor_class(verbose=False).run_case_save(
        str(pre / "stock"),
        images,
        str(raw / "labelsTr" / f"{name(0)}.nii.gz"),
        plans_manager,
        configuration,
        dataset_json,
    )
    (pre / "stock.b2nd").replace(pre / FOLDER / f"{name(0)}.b2nd")
    with pytest.raises(InputError, match=r"normalises by the nonzero mask. Run `gmabs prepare -p nnUNetPlans` first"):
        require_prepared_where_it_matters(*trainer_view(pre))
    assert run().folders[FOLDER].built == [name(0)]
    require_prepared_where_it_matters(*trainer_view(pre))


def test_status_shows_every_plane_and_names_those_outside_the_box(masked, capsys):
    assert main(["status", "-d", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"{DATASET}: 4 scans, 2 labelled, 2 unlabelled" in printed
    rows = [line for line in printed.splitlines() if line.startswith("  scan_0")]
    assert [row.split()[0] for row in rows] == [name(0), name(1)]
    for row in rows:
        columns = [column for column in row.split("  ") if column]
        assert columns[1].strip() == "3 1 1" and columns[5].strip() == "2 1 1"
        assert columns[-1].strip() == "outside the non-zero box: axis 0 index 0"


def test_status_fails_when_something_drawn_is_missing_on_the_training_grid(masked, capsys):
    _, pre = masked
    path = expert_file(pre, FOLDER, name(1))
    array, metadata = read_expert(path)
    values = array[...]
    position = np.argwhere(decode(values[0]) == 1)[0]
    values[(0, *position)] = IGNORE
    path.unlink()
    tampered = blosc2.asarray(values, urlpath=str(path))
    tampered.schunk.vlmeta["gmabs"] = metadata
    assert main(["status", "-d", "1", "-c", "3d_fullres"]) == 1
    printed = capsys.readouterr().out
    assert "LOST" in printed and f"missing on the training grid in {name(1)}" in printed


def test_status_says_what_is_to_be_prepared(masked, capsys):
    raw, pre = masked
    write_labels(raw, 1, [(0, 5)])
    assert main(["status", "-d", "1"]) == 0
    assert "1 scan changed since prepared; run: gmabs prepare" in capsys.readouterr().out
    shutil.rmtree(pre)
    assert main(["status", "-d", "1"]) == 0
    assert "not prepared yet; run: gmabs prepare -d 1" in capsys.readouterr().out
    assert main(["status", "-d", "1", "-c", "2d"]) == 2
    assert "-c 2d: not prepared; run `gmabs prepare -c 2d`" in capsys.readouterr().err


def test_two_worker_processes_make_the_same_data_as_none(masked):
    raw, pre = masked
    before = {path.name: blosc2.open(urlpath=str(path), mode="r")[...] for path in (pre / FOLDER).glob("*.b2nd")}
    shutil.rmtree(pre / FOLDER)
    result = prepare(PrepareOptions("1", ("3d_fullres",), processes=2), lambda text: None)
    assert sorted(result.folders[FOLDER].built) == [name(n) for n in range(4)]
    for path in (pre / FOLDER).glob("*.b2nd"):
        np.testing.assert_array_equal(blosc2.open(urlpath=str(path), mode="r")[...], before.pop(path.name))
    assert not before
