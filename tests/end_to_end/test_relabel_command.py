"""gmabs relabel: one round with a finished model of stock nnU-Net, into label files on the scans' own grids."""

import json
import os
import shutil
from unittest import mock

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk
from relabel_tools import BoxGeneralist
from tiny import Training

from nnunet_gmabs import cli
from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.generalist import from_plans

pytestmark = pytest.mark.slow
SCANS = [raw_data.name(number) for number in range(7)]


@pytest.fixture(scope="module")
def model(project, tmp_path_factory):
    """Stock nnU-Net's folder of a training, with a network as it is before its first step."""
    training = Training(project, tmp_path_factory.mktemp("model"), "nnUNetTrainer")
    trainer = training.build()
    training.output.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(training.final))
    for name, content in (("plans.json", trainer.plans_manager.plans), ("dataset.json", trainer.dataset_json)):
        (training.output.parent / name).write_text(json.dumps(content))
    return training.output.parent


@pytest.fixture
def boxes(monkeypatch):
    """A generalist that takes no time."""
    monkeypatch.setattr(from_plans, "load_generalist", lambda *_: BoxGeneralist())


@pytest.fixture
def relabel(project, model, tmp_path, capsys):
    """Calls the command, and returns what it printed."""

    def command(*options, output="labels", expect=0, settings=None):
        file = tmp_path / "settings.json"
        file.write_text(json.dumps(settings or {}))
        variables = {**project.variables(), "nnUNet_gmabs_config": str(file)}
        where = ["-d", project.number, "--from", str(model), "-o", str(tmp_path / output), "-device", "cpu"]
        with mock.patch.dict(os.environ, variables):
            assert cli.main(["relabel", *where, *options]) == expect
        printed = capsys.readouterr()
        return printed.err if expect else printed.out

    return command


def read(folder, name):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz")))


def test_a_label_file_for_each_scan_on_its_own_grid_with_the_experts_voxels(relabel, project, tmp_path):
    printed = relabel()
    out = tmp_path / "labels"
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in SCANS]
    classes = set()
    for number, name in enumerate(SCANS):
        image = sitk.ReadImage(str(project.raw / "imagesTr" / f"{name}_0000.nii.gz"))
        label = sitk.ReadImage(str(out / f"{name}.nii.gz"))
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(label, what)(), getattr(image, what)(), rtol=1e-5)
        drawn_file = project.raw / "labelsTr" / f"{name}.nii.gz"
        if number < 3:
            drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(drawn_file)))
            np.testing.assert_array_equal(read(out, name)[drawn != 3], drawn[drawn != 3])
        classes |= set(np.unique(read(out, name)).tolist())
    assert classes <= {0, 1, 2}
    assert "scans                    7" in printed and "expert_dice/class_1" in printed
    assert str(out) in printed
    slices = float(next(line.split()[1] for line in printed.splitlines() if line.startswith("  slices ")))
    assert (out / "prompts.png").is_file() == (slices > 0)


def test_parts_make_the_same_files_and_a_killed_one_goes_on(relabel, boxes, tmp_path, monkeypatch):
    relabel()
    whole, parts = tmp_path / "labels", tmp_path / "parts"
    assert "4 scans are left to other parts" in relabel("-num_parts", "2", "-part_id", "1", output="parts")
    with monkeypatch.context() as patch:
        write = pseudo_labels.write_pseudo_labels

        def dies(folder, number, identifier, *more):
            if identifier == SCANS[4]:
                raise KeyboardInterrupt
            write(folder, number, identifier, *more)

        patch.setattr(pseudo_labels, "write_pseudo_labels", dies)
        with pytest.raises(KeyboardInterrupt):
            relabel("-num_parts", "2", "-part_id", "0", output="parts")
    assert not (parts / f"{SCANS[4]}.nii.gz").exists()
    (parts / f"{SCANS[0]}.nii.gz").unlink()  # as if killed between the two files
    written = (parts / f"{SCANS[1]}.nii.gz").stat().st_mtime_ns
    relabel("-num_parts", "2", "-part_id", "0", output="parts")
    assert (parts / f"{SCANS[1]}.nii.gz").stat().st_mtime_ns == written
    for name in SCANS:
        np.testing.assert_array_equal(read(parts, name), read(whole, name))


def test_labels_of_other_settings_are_not_mixed(relabel, boxes):
    relabel("-num_parts", "7", "-part_id", "6")
    said = relabel(settings={"relabel": {"fusion": "unanimous"}}, expect=2)
    assert "labels: has labels made with another relabel; name another folder with -o" in said
    relabel("-num_parts", "7", "-part_id", "6", settings={"generalist": {"cache_gib": 3.0}})


def test_bad_input_is_named(relabel, boxes, model, tmp_path):
    assert "-part_id 2: must be from 0 to 1" in relabel("-num_parts", "2", "-part_id", "2", expect=2)
    assert "no fold_X/checkpoint_final.pth" in relabel("-f", "3", expect=2)
    said = relabel("-num_parts", "2", settings={"relabel": {"min_expert_agreement": 0.5}}, expect=2)
    assert "leave out -num_parts" in said
    assert "the setting generalist is null in" in relabel(settings={"generalist": None}, expect=2)
    other = shutil.copytree(model, tmp_path / "other")
    content = json.loads((other / "dataset.json").read_text())
    content["labels"] = {"background": 0, "left": 1, "middle": 2, "ignore": 3}
    (other / "dataset.json").write_text(json.dumps(content))
    assert "knows the labels" in relabel("--from", str(other), expect=2)
    shutil.copyfile(model / "dataset.json", other / "dataset.json")
    plans = json.loads((other / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
    (other / "plans.json").write_text(json.dumps(plans))
    assert "the model was trained with other plans" in relabel("--from", str(other), expect=2)
