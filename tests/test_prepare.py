"""From raw files to training data: what is made, what a second run does, and what a running training sees."""

import json
import os
import shutil

import asked
import blosc2
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from raw_data import (
    FIRST_PLANES,
    IGNORE,
    LABELS,
    SPARSE_LABELS,
    name,
    scan_image,
    scan_labels,
    scan_spacing,
    snapshot,
    stamps,
    write_dataset_json,
    write_image,
    write_labels,
    write_raw,
    write_scan,
)

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data import preprocess
from nnunet_gmabs.data.expert import (
    class_locations,
    decode,
    ensure_expert_labels,
    expert_file,
    labelled_identifiers,
    read_expert,
)
from nnunet_gmabs.data.grid import labels_to_training_grid
from nnunet_gmabs.data.planning import load_plans
from nnunet_gmabs.data.prepare import PrepareOptions, prepare
from nnunet_gmabs.data.record import require_prepared_where_it_matters
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow  # the data set is prepared once, which takes ten seconds

DATASET = "Dataset001_Tiny"
FOLDER = "nnUNetPlans_3d_fullres"


def run(say=lambda text: None, **options):
    return prepare(
        PrepareOptions(**({"dataset": "1", "configurations": ("3d_fullres",), "processes": 1} | options)), say
    )


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    """A data set of three labelled and three unlabelled scans, dataset.json without ignore label, prepared."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        raw = write_raw(root / "nnUNet_raw" / DATASET)
        write_dataset_json(raw, SPARSE_LABELS, scans=3)  # numTraining is wrong
        original = (raw / "dataset.json").read_bytes()
        said = []
        result = run(said.append, configurations=("2d", "3d_fullres"), cpu=True)
    return root, original, result, said


@pytest.fixture
def prepared(prepared_once, nnunet_folders):
    """A copy of it for one test: the raw and the preprocessed folder."""
    for variable, folder in nnunet_folders.items():
        shutil.copytree(prepared_once[0] / variable, folder, dirs_exist_ok=True)
    return nnunet_folders["nnUNet_raw"] / DATASET, nnunet_folders["nnUNet_preprocessed"] / DATASET


def managers(pre, configuration="3d_fullres", plans="nnUNetPlans"):
    plans_manager = load_plans(pre, plans)
    return plans_manager, plans_manager.get_configuration(configuration)


def dataset_json(folder):
    return json.loads((folder / "dataset.json").read_text())


def read_labels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def changed(before, after):
    """Scans of which a file was written, made or removed."""
    paths = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    return {path.name[:7] for path in paths if path.name.startswith("scan_")}


def test_every_scan_becomes_a_case_that_stock_nnunet_reads(prepared):
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    _, pre = prepared
    folder = str(pre / FOLDER)
    dataset = infer_dataset_class(folder)(folder)
    assert sorted(dataset.identifiers) == [name(number) for number in range(6)]
    for identifier in dataset.identifiers:
        data, seg, _, properties = dataset.load_case(identifier)
        expert, _ = read_expert(expert_file(pre, FOLDER, identifier))
        assert data.shape[1:] == seg.shape[1:] == expert.shape[1:]
        assert expert.shape[0] == 1 and expert.dtype == np.int16
        assert (pre / "gt_segmentations" / f"{identifier}.nii.gz").is_file()
        assert "class_locations" in properties


def test_numtraining_is_corrected_after_a_backup_of_the_users_file(prepared_once):
    root, original, _, _ = prepared_once
    raw = root / "nnUNet_raw" / DATASET
    assert dataset_json(raw)["numTraining"] == 6
    assert (raw / "gmabs" / "dataset.json.backup").read_bytes() == original
    assert dataset_json(root / "nnUNet_preprocessed" / DATASET) == dataset_json(raw)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_unlabelled_scans_get_a_label_file_that_is_all_ignore_on_the_grid_of_the_image(prepared, number):
    raw, pre = prepared
    image = sitk.ReadImage(str(raw / "imagesTr" / f"{name(number)}_0000.nii.gz"))
    labels = sitk.ReadImage(str(raw / "labelsTr" / f"{name(number)}.nii.gz"))
    assert (sitk.GetArrayFromImage(labels) == IGNORE).all()
    assert labels.GetSize() == image.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, get)(), getattr(image, get)(), atol=1e-6)
    values, metadata = read_expert(expert_file(pre, FOLDER, name(number)))
    assert (decode(values[...]) == IGNORE).all() and not class_locations(metadata)


def test_labelled_scans_are_those_with_drawn_voxels(prepared_once):
    root, _, result, _ = prepared_once
    pre = root / "nnUNet_preprocessed" / DATASET
    assert result.labelled == [name(0), name(1), name(2)]
    assert result.unlabelled == [name(3), name(4), name(5)]
    assert labelled_identifiers(pre, FOLDER, [name(4), name(2), name(0)]) == [name(2), name(0)]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_expert_files_hold_the_labels_of_the_raw_file_on_the_training_grid(prepared, configuration, number):
    import pickle

    raw, pre = prepared
    plans_manager, configuration_manager = managers(pre, configuration)
    folder = configuration_manager.data_identifier
    labels = read_labels(raw / "labelsTr" / f"{name(number)}.nii.gz")
    properties = pickle.loads((pre / folder / f"{name(number)}.pkl").read_bytes())
    expected = labels_to_training_grid(labels[None], properties, plans_manager, configuration_manager, IGNORE)
    values, metadata = read_expert(expert_file(pre, folder, name(number)))
    np.testing.assert_array_equal(decode(values[...]), expected)
    locations = class_locations(metadata)
    assert set(locations) == {0, 1, 2}
    for value, places in locations.items():
        np.testing.assert_array_equal(places, np.argwhere(expected[0] == value))
        assert metadata["voxels"][str(value)] == len(places)


def test_cpu_plans_share_the_data_of_the_full_plans(prepared):
    _, pre = prepared
    for configuration in ("2d", "3d_fullres"):
        full, small = (managers(pre, configuration, plans)[1] for plans in ("nnUNetPlans", "nnUNetPlansCPU"))
        assert small.data_identifier == full.data_identifier == f"nnUNetPlans_{configuration}"
        assert small.network_arch_init_kwargs["features_per_stage"][0] == 16
    assert small.batch_size == 2
    assert not list(pre.glob("nnUNetPlansCPU_*"))


def test_a_second_run_says_that_small_plans_are_kept_and_how_they_are_made_anew(prepared):
    _, pre = prepared
    before, said = (pre / "nnUNetPlansCPU.json").read_bytes(), []
    run(said.append, cpu=True, cpu_seconds=5.0)
    assert (pre / "nnUNetPlansCPU.json").read_bytes() == before
    line = f"kept: {pre / 'nnUNetPlansCPU.json'}, so --cpu-seconds changes nothing (--replan makes all plans again)"
    assert said.count(line) == 1


def test_fewer_than_five_labelled_scans_train_and_validate_on_all_of_them_and_this_is_said(prepared_once):
    root, _, _, said = prepared_once
    folds = json.loads((root / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    names = [name(0), name(1), name(2)]
    assert folds == [{"train": names, "val": names}] * 5
    assert any("only 3 scans are labelled: every fold trains and validates on all of them" in text for text in said)


def test_folds_of_fewer_scans_are_named_once_there_are_enough_for_better_ones(prepared):
    raw, pre = prepared
    for number in (3, 4):
        write_labels(raw, number)
    for overlap in (True, False):
        said = []
        run(said.append)
        assert any("still validates on scans that are trained on" in text for text in said) is overlap
        folds = json.loads((pre / "splits_final.json").read_text())
        assert any(set(fold["train"]) & set(fold["val"]) for fold in folds) is overlap
        (pre / "splits_final.json").unlink()


def test_a_second_run_writes_nothing(prepared):
    raw, pre = prepared
    before = stamps(raw), stamps(pre)
    result = run(configurations=("2d", "3d_fullres"), cpu=True)
    assert (stamps(raw), stamps(pre)) == before
    assert all(not folder.built and len(folder.kept) == 6 for folder in result.folders.values())


def test_another_time_of_change_alone_rebuilds_nothing(prepared):
    raw, pre = prepared
    for path in raw.rglob("*.nii.gz"):
        path.touch()
    before = snapshot(pre / FOLDER)
    assert run().folders[FOLDER].built == []
    assert snapshot(pre / FOLDER) == before
    before = stamps(pre)
    run()
    assert stamps(pre) == before


def test_a_new_label_rebuilds_its_scan_only_and_the_scan_joins_training(prepared):
    raw, pre = prepared
    before = stamps(pre)
    write_labels(raw, 4)
    result = run()
    assert result.folders[FOLDER].built == [name(4)]
    assert changed(before, stamps(pre)) == {name(4)}
    values, _ = read_expert(expert_file(pre, FOLDER, name(4)))
    assert (decode(values[...]) != IGNORE).any()
    assert read_labels(pre / "gt_segmentations" / f"{name(4)}.nii.gz").min() == 0
    folds = json.loads((pre / "splits_final.json").read_text())
    assert all(fold["train"] == [name(n) for n in (0, 1, 2, 4)] for fold in folds)
    assert all(fold["val"] == [name(n) for n in (0, 1, 2)] for fold in folds)


def test_a_label_that_is_taken_back_makes_its_scan_unlabelled_again(prepared):
    raw, pre = prepared
    (raw / "labelsTr" / f"{name(2)}.nii.gz").unlink()
    result = run()
    assert result.unlabelled == [name(n) for n in (2, 3, 4, 5)]
    folds = json.loads((pre / "splits_final.json").read_text())
    assert all(name(2) not in fold["train"] + fold["val"] for fold in folds)


def test_a_changed_image_rebuilds_its_scan_only(prepared):
    raw, pre = prepared
    before = stamps(pre)
    write_scan(raw, 1, scale=2.0)
    assert run().folders[FOLDER].built == [name(1)]
    assert changed(before, stamps(pre)) == {name(1)}


def test_scans_may_come_and_go(prepared):
    raw, pre = prepared
    write_scan(raw, 6)
    (raw / "imagesTr" / f"{name(5)}_0000.nii.gz").unlink()  # its label file was made by us and goes with it
    (raw / "imagesTr" / f"{name(2)}_0000.nii.gz").unlink()
    (raw / "labelsTr" / f"{name(2)}.nii.gz").unlink()
    said = []
    result = run(said.append)
    assert result.folders[FOLDER].built == [name(6)]
    assert "not up to date: nnUNetPlans_2d; run `gmabs prepare -c 2d -p nnUNetPlans`, before you train on it" in said
    assert result.folders[FOLDER].removed == [name(2), name(5)]
    assert result.labelled == [name(0), name(1)] and result.unlabelled == [name(n) for n in (3, 4, 6)]
    for folder in (FOLDER, f"{FOLDER}_gmabs"):
        assert not [path for path in (pre / folder).iterdir() if path.name.startswith((name(2), name(5)))]
    labels_left = sorted(path.name[:7] for path in (pre / "gt_segmentations").iterdir())
    assert labels_left == [name(n) for n in range(7)]  # the data of 2d, which was not asked for, still needs them
    run(configurations=("2d",))
    labels_left = sorted(path.name[:7] for path in (pre / "gt_segmentations").iterdir())
    assert labels_left == [name(n) for n in (0, 1, 3, 4, 6)]
    assert dataset_json(raw)["numTraining"] == dataset_json(pre)["numTraining"] == 5
    assert not (raw / "labelsTr" / f"{name(5)}.nii.gz").exists()
    assert set(json.loads((raw / "gmabs" / "made_labels.json").read_text())) == {name(n) for n in (3, 4, 6)}


def test_a_new_class_moves_the_ignore_label_of_the_files_that_were_made(prepared):
    raw, pre = prepared
    write_dataset_json(raw, LABELS | {"third": 3, "ignore": 4})
    for number in range(3):  # what a user has to do with own files
        labels = keep_planes(scan_labels(number), FIRST_PLANES, 4)
        write_image(raw / "labelsTr" / f"{name(number)}.nii.gz", labels, scan_spacing(number))
    result = run()
    assert result.labelled == [name(0), name(1), name(2)]
    assert len(result.folders[FOLDER].built) == 6
    assert (read_labels(raw / "labelsTr" / f"{name(5)}.nii.gz") == 4).all()


def test_a_label_file_that_still_holds_the_old_ignore_label_is_named_once_that_is_a_class(prepared):
    raw, pre = prepared
    write_dataset_json(raw, LABELS | {"third": 3, "ignore": 4})
    labels = keep_planes(scan_labels(0), FIRST_PLANES, 4)
    write_image(raw / "labelsTr" / f"{name(0)}.nii.gz", labels, scan_spacing(0))  # scans 1 and 2 are forgotten
    before = snapshot(raw, pre)
    with pytest.raises(
        InputError,
        match=r"(?s)scan_01.nii.gz: holds 3, which was the ignore label when .* and is 'third' in dataset.json now; "
        r"replace 3 by 4 .*scan_02",
    ) as caught:
        run()
    assert "scan_00" not in str(caught.value)
    assert snapshot(raw, pre) == before


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_file_that_is_gone_is_made_again(prepared, ending):
    _, pre = prepared
    (pre / FOLDER / f"{name(1)}{ending}").unlink()
    assert run().folders[FOLDER].built == [name(1)]
    assert (pre / FOLDER / f"{name(1)}{ending}").is_file()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"nonsense")])
def test_a_damaged_expert_file_is_made_again(prepared, damage):
    _, pre = prepared
    path = expert_file(pre, FOLDER, name(1))
    before = read_expert(path)[0][...]
    damage(path)
    run()
    np.testing.assert_array_equal(read_expert(path)[0][...], before)


@pytest.mark.parametrize("seconds", [0, 4_000_000_000], ids=["clock set back", "clock set forward"])
def test_a_wrong_clock_hides_no_change(seconds, prepared):
    raw, _ = prepared
    path = raw / "labelsTr" / f"{name(1)}.nii.gz"
    os.utime(path, (seconds, seconds))
    assert run().folders[FOLDER].built == []
    write_labels(raw, 1, planes=((0, 4),))
    os.utime(path, (seconds, seconds))
    assert run().folders[FOLDER].built == [name(1)]


def interrupted_after(number, run, monkeypatch):
    """Call run(), interrupted once so many scans are built; these scans."""
    original, done = preprocess._make_files, []

    def make(job, staging):
        if len(done) == number:
            raise KeyboardInterrupt
        done.append(job.case.identifier)
        return original(job, staging)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "_make_files", make)
        with pytest.raises(KeyboardInterrupt):
            run()
    return done


def test_a_killed_run_goes_on_where_it_stopped(prepared, monkeypatch):
    raw, pre = prepared
    for number in range(6):
        write_scan(raw, number, scale=3.0)
    done = interrupted_after(2, run, monkeypatch)
    assert run().folders[FOLDER].built == sorted({name(n) for n in range(6)} - set(done))
    assert not list((pre / f"{FOLDER}_gmabs").glob("staging*"))


def test_status_calls_scans_not_prepared_whose_data_were_removed_to_save_room(prepared, capsys):
    raw, pre = prepared
    shutil.rmtree(pre / FOLDER)
    assert cli.main(["status", "-d", "1", "-c", "3d_fullres"]) == 0
    said = capsys.readouterr().out
    assert said.count(" not prepared\n") == 3 and "changed since" not in said
    assert "data of 3 scans are not there; run: gmabs prepare -d Dataset001_Tiny" in said


def test_a_merge_is_done_although_the_prepared_data_cannot_follow(prepared, capsys):
    raw, pre = prepared
    data_set = RawFolder(raw)
    asked.ask(data_set, {name(3): FIRST_PLANES})
    asked.answer(data_set, 0, name(3), FIRST_PLANES)
    shutil.rmtree(pre / FOLDER)
    for command, drawn in (["merge"], True), (["unmerge", "--round", "0"], False):
        assert cli.main([*command, "-d", "1"]) == 0
        said = capsys.readouterr()
        assert (asked.labels_of(data_set, name(3)) != IGNORE).any() == drawn
        assert said.err.startswith(f"gmabs {command[0]}: warning: labelsTr is done, what is prepared did not follow (")
        assert said.err.endswith("); run: gmabs prepare -d 1\n")


def test_without_names_what_is_prepared_already_is_brought_up_to_date(prepared):
    raw, pre = prepared
    for path in pre.glob("nnUNetPlans_2d*"):
        shutil.rmtree(path)
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    write_labels(raw, 4)
    said = []
    result = run(said.append, configurations=())
    assert list(result.folders) == [FOLDER] and result.folders[FOLDER].built == [name(4)]
    assert "prepared before: 3d_fullres (-c names others)" in said


def test_without_names_a_killed_first_run_makes_all_that_it_wanted(prepared, monkeypatch):
    _, pre = prepared
    for path in pre.glob("nnUNetPlans_*"):
        shutil.rmtree(path)
    interrupted_after(1, lambda: run(configurations=()), monkeypatch)
    result = run(configurations=())
    assert [len(folder.built) for folder in result.folders.values()] == [5, 6]


def test_a_running_training_never_sees_a_missing_half_written_or_foreign_file(prepared, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    raw, pre = prepared
    folder = pre / FOLDER
    opened = blosc2.open(urlpath=str(folder / f"{name(3)}.b2nd"), mode="r", mmap_mode="r")
    content = opened[...]
    looks = []

    def look():
        dataset = infer_dataset_class(str(folder))(str(folder))
        assert sorted(dataset.identifiers) == [name(number) for number in range(6)]
        for identifier in dataset.identifiers:
            data, seg, _, _ = dataset.load_case(identifier)
            expert, _ = read_expert(expert_file(pre, FOLDER, identifier))
            assert data[...].shape[1:] == seg[...].shape[1:] == expert[...].shape[1:]
        looks.append(True)

    original = preprocess.os.replace

    def replace(source, target):
        look()
        original(source, target)
        look()

    for number in (3, 4):
        write_labels(raw, number)
    other = scan_image(3)
    other[:4] *= 2  # the same shape, other values
    write_image(raw / "imagesTr" / f"{name(3)}_0000.nii.gz", other, scan_spacing(3))
    monkeypatch.setattr(preprocess.os, "replace", replace)
    assert run().folders[FOLDER].built == [name(3), name(4)]
    assert len(looks) >= 16
    assert not np.array_equal(blosc2.open(urlpath=str(folder / f"{name(3)}.b2nd"), mode="r")[...], content)
    np.testing.assert_array_equal(opened[...], content)  # a file opened before keeps its content


def test_labels_outside_what_nnunet_keeps_are_named(prepared):
    raw, pre = prepared
    image = scan_image(2)
    image[0] = 0
    write_image(raw / "imagesTr" / f"{name(2)}_0000.nii.gz", image, scan_spacing(2))
    write_labels(raw, 2, [(0, 0)])
    said = []
    assert run(said.append).labelled == [name(0), name(1)]
    assert any(text.startswith("warning: scan_02: every label lies outside the box") for text in said)


def test_a_broken_fingerprint_is_named(prepared):
    _, pre = prepared
    (pre / "dataset_fingerprint.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_fingerprint.json: not usable .*--replan"):
        run()


def test_files_of_an_old_nnunet_are_named(prepared):
    raw, pre = prepared
    (pre / FOLDER / "scan.npz").touch()
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=r"scan.npz: nnU-Net tolerates only"):
        run()
    assert snapshot(raw, pre) == before


def test_users_splits_are_honoured(prepared):
    _, pre = prepared
    folds = [{"train": [name(0), name(3)], "val": [name(1)]}]
    (pre / "splits_final.json").write_text(json.dumps(folds))
    said = []
    run(said.append)
    assert json.loads((pre / "splits_final.json").read_text()) == folds
    assert any("splits_final.json (yours)" in text for text in said)


def test_users_splits_in_the_raw_folder_replace_ours_but_not_others_of_theirs(prepared):
    raw, pre = prepared
    folds = [{"train": [name(0)], "val": [name(1)]}]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    run()
    assert json.loads((pre / "splits_final.json").read_text()) == folds
    (raw / "splits_final.json").write_text(json.dumps(folds * 2))
    with pytest.raises(InputError, match=r"splits_final.json: differs from"):
        run()


@pytest.fixture
def other_plans(prepared):
    """As if it had been prepared with -p MyPlans, and with no other plans."""
    _, pre = prepared
    plans = json.loads((pre / "nnUNetPlans.json").read_text()) | {"plans_name": "MyPlans"}
    (pre / "MyPlans.json").write_text(json.dumps(plans))
    for path in pre.glob("nnUNetPlans*.json"):
        path.unlink()
    for path in pre.glob("*_gmabs/prepared.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"plans": "MyPlans"}))
    return prepared


def test_status_finds_what_was_prepared_for_plans_of_another_name(other_plans, capsys):
    assert cli.main(["status", "-d", "1"]) == 0
    said = capsys.readouterr().out
    assert f"3d_fullres ({FOLDER}, " in said and "not prepared" not in said


def test_without_names_plans_of_another_name_are_kept(other_plans):
    raw, pre = other_plans
    write_labels(raw, 4)
    result = run(configurations=())
    assert result.plans == ["MyPlans"] and result.folders[FOLDER].built == [name(4)]
    assert not (pre / "nnUNetPlans.json").exists()


def test_plans_are_made_again_by_the_planner_that_made_them(other_plans):
    _, pre = other_plans
    before = json.loads((pre / "MyPlans.json").read_text())
    for used, network in (("nnUNetPlannerResEncM", "ResidualEncoderUNet"), ("ExperimentPlanner", "PlainConvUNet")):
        (pre / "MyPlans.json").write_text(json.dumps(before | {"experiment_planner_used": used}))
        assert run(configurations=(), replan=True).plans == ["MyPlans"]
        after = json.loads((pre / "MyPlans.json").read_text())
        assert after["experiment_planner_used"] == used
        assert after["configurations"]["3d_fullres"]["architecture"]["network_class_name"].endswith(f".{network}")
    (pre / "MyPlans.json").write_text(json.dumps(before | {"experiment_planner_used": "TheirPlanner"}))
    with pytest.raises(InputError, match=r"MyPlans.json: was made by TheirPlanner, which nnU-Net has not; name a pl"):
        run(configurations=(), replan=True)


@pytest.mark.parametrize("channels", [("CT",), ("MRI", "MRI")])
def test_channels_that_are_normalised_in_another_way_are_planned_anew(prepared, channels):
    raw, pre = prepared
    content = dataset_json(raw)
    content["channel_names"] = {str(i): channel for i, channel in enumerate(channels)}
    (raw / "dataset.json").write_text(json.dumps(content))
    if len(channels) == 2:
        for number in range(6):
            image = raw / "imagesTr" / f"{name(number)}_0000.nii.gz"
            shutil.copy(image, image.with_name(f"{name(number)}_0001.nii.gz"))
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=r"dataset.json: channel_names are .*planned for \['MRI'\].*--replan"):
        run()
    assert snapshot(raw, pre) == before


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ("scan_07", 'scan_07_0000.nii.gz: cannot be read .*write "overwrite_image_reader_writer": "NibabelIO" into'),
        ("a_scan", "nnUNetPlans.json: was planned for images read by SimpleITKIO, .* ask for NibabelIO, .*--replan"),
    ],
    ids=["last", "first"],
)
def test_a_new_scan_that_the_planned_reader_does_not_open_is_named_with_the_cure(prepared, scan, message):
    raw, pre = prepared
    affine = np.array([[1.1, 0.2, 0, 5], [0, 1.2, 0, 6], [0, 0, 1.3, -20], [0, 0, 0, 1]])  # not at right angles
    nibabel.save(nibabel.Nifti1Image(scan_image(7).T, affine), raw / "imagesTr" / f"{scan}_0000.nii.gz")
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=message):
        run()
    assert snapshot(raw, pre) == before


def test_another_reader_is_planned_anew(prepared):
    raw, pre = prepared
    content = dataset_json(raw) | {"overwrite_image_reader_writer": "NibabelIOWithReorient"}
    (raw / "dataset.json").write_text(json.dumps(content))
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=r"nnUNetPlans.json: was planned for images read by SimpleITKIO, .*Reorient,"):
        run()
    assert snapshot(raw, pre) == before
    assert len(run(replan=True).folders[FOLDER].built) == 6
    assert cli.main(["status", "-d", "1", "-p", "nnUNetPlans", "-c", "3d_fullres"]) == 0


def test_a_channel_may_be_called_something_else(prepared):
    raw, _ = prepared
    (raw / "dataset.json").write_text(json.dumps(dataset_json(raw) | {"channel_names": {"0": "T1"}}))
    assert run().folders[FOLDER].built == []


def test_configurations_that_do_not_exist_or_are_cascades_are_refused(prepared):
    raw, pre = prepared
    plans = json.loads((pre / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    before = snapshot(raw, pre)
    with pytest.raises(InputError, match=r"-c 3d_lowres: not in .*nnUNetPlans.json, which has 2d, 3d_fullres"):
        run(configurations=("3d_lowres",))
    with pytest.raises(InputError, match="cascades are not supported"):
        run(configurations=("3d_cascade_fullres",))
    assert snapshot(raw, pre) == before


def test_a_trainer_accepts_stock_data_where_nothing_depends_on_the_ignore_label(prepared):
    _, pre = prepared
    shutil.rmtree(pre / f"{FOLDER}_gmabs")
    arguments = (pre, *managers(pre), dataset_json(pre))
    require_prepared_where_it_matters(*arguments)
    identifiers = [name(number) for number in range(6)]
    assert ensure_expert_labels(*arguments, identifiers) == identifiers
    assert ensure_expert_labels(*arguments, identifiers) == []
    assert labelled_identifiers(pre, FOLDER, identifiers) == identifiers[:3]


def test_expert_files_follow_new_labels_in_stock_data(prepared):
    _, pre = prepared
    labels = keep_planes(scan_labels(4), [(2, 8)], IGNORE)
    write_image(pre / "gt_segmentations" / f"{name(4)}.nii.gz", labels, scan_spacing(4))
    arguments = (pre, *managers(pre), dataset_json(pre), [name(n) for n in range(6)])
    assert ensure_expert_labels(*arguments) == [name(4)]


def test_expert_files_of_scans_that_are_not_prepared_are_refused(prepared):
    _, pre = prepared
    (pre / "gt_segmentations" / f"{name(4)}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"gt_segmentations/scan_04.nii.gz is missing. Run `gmabs prepare`"):
        ensure_expert_labels(pre, *managers(pre), dataset_json(pre), [name(4)])
    write_image(pre / "gt_segmentations" / f"{name(4)}.nii.gz", scan_labels(4)[:-1], scan_spacing(4))
    with pytest.raises(InputError, match=r"scan_04.nii.gz: labels have shape .* exported again"):
        ensure_expert_labels(pre, *managers(pre), dataset_json(pre), [name(4)])


def test_locations_are_bounded_and_drawn_with_a_seed():
    from nnunet_gmabs.data.expert_build import MAX_LOCATIONS, _sample_locations

    labels = np.zeros((20, 30, 40), np.int16)
    labels[0, 0, :2] = 1
    first, again = _sample_locations(labels, None), _sample_locations(labels, None)
    assert first == again
    places = np.frombuffer(first["0"], np.int32).reshape(-1, 3)
    assert places.shape == (MAX_LOCATIONS, 3) and len(np.unique(places, axis=0)) == MAX_LOCATIONS
    assert (labels[tuple(places.T)] == 0).all()
    assert np.frombuffer(first["1"], np.int32).reshape(-1, 3).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_images_keep_their_values(prepared):
    """Nothing of ours changes what nnU-Net does to an image without a mask: mean 0, standard deviation 1."""
    _, pre = prepared
    for number in (0, 5):
        data = blosc2.open(urlpath=str(pre / FOLDER / f"{name(number)}.b2nd"), mode="r")[...]
        image = scan_image(number)
        assert abs(data.mean()) < 0.1 and 0.7 < data.std() < 1.1
        assert data.max() < (image.max() - image.mean()) / image.std() * 1.2
