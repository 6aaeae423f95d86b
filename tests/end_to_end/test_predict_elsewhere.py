"""What we train predicts with stock nnU-Net where nnunet_gmabs is not installed."""

import importlib.metadata
import os
import venv

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk
import tiny
import torch
from test_install import link_packages

pytestmark = pytest.mark.slow
SCRIPT = """
import sys
from {module} import {function}
if __name__ == "__main__":
    sys.exit({function}())
"""


class Elsewhere:
    """An environment with all packages of this one, but ours."""

    def __init__(self, folder):
        venv.create(folder / "venv", with_pip=False)
        self.folder = folder
        self.python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        where = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        with open(os.path.join(where, "borrowed.pth"), "w") as f:
            f.write(f"{link_packages(folder / 'borrowed')}\n")

    def run(self, *arguments, expect=0, **variables):
        """Run this environment's Python, in its own folder: here, ours would be found in the current one."""
        shell = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "nnUNet"))}
        process = tiny.start(self.python, *arguments, environment=shell | variables, folder=self.folder)
        return tiny.wait(process, expect)

    def command(self, name, *arguments, **variables):
        """Run what the command of that name would run."""
        [entry] = importlib.metadata.entry_points(group="console_scripts", name=name)
        script = self.folder / f"{name}.py"
        script.write_text(SCRIPT.format(module=entry.module, function=entry.attr))
        self.run(str(script), *arguments, **variables)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Two scans for prediction."""
    folder = tmp_path_factory.mktemp("unseen")
    for number in (20, 21):
        raw_data.write_scan(folder, number)
    return folder / "imagesTr"


@pytest.fixture(scope="module")
def predicted(trained, elsewhere, unseen, tmp_path_factory):
    """Folders with predictions by the two commands."""
    by_name, by_folder = tmp_path_factory.mktemp("by_name"), tmp_path_factory.mktemp("by_folder")
    what = ["-d", trained.project.number, "-c", trained.configuration, "-f", "0", "-p", trained.plans]
    elsewhere.command(
        "nnUNetv2_predict",
        *what,
        *("-tr", trained.trainer, "-i", str(unseen), "-o", str(by_name), "-device", "cpu", "-npp", "0", "-nps", "0"),
        **trained.project.variables() | {"nnUNet_results": str(trained.folder / "nnUNet_results")},
    )
    elsewhere.command(
        "nnUNetv2_predict_from_modelfolder",
        *("-m", str(trained.output.parent), "-f", "0", "-i", str(unseen), "-o", str(by_folder), "-device", "cpu"),
        *("-npp", "1", "-nps", "1"),
    )
    return by_name, by_folder


def test_elsewhere_has_no_nnunet_gmabs(elsewhere):
    elsewhere.run("-c", "import nnunetv2")
    assert "No module named 'nnunet_gmabs'" in elsewhere.run("-c", "import nnunet_gmabs", expect=1)


def test_checkpoints_hold_the_teacher_for_stock_nnunet(trained):
    content = tiny.load(trained.final)
    assert content["trainer_name"] == "nnUNetTrainer"
    networks = content["gmabs"]["networks"]
    assert tiny.differences(content["network_weights"], networks["teacher"]) == []
    assert tiny.differences(content["network_weights"], networks["student"]) != []


def test_both_commands_predict_with_the_teacher(predicted, trained, unseen, tmp_path):
    networks = tiny.load(trained.final)["gmabs"]["networks"]
    teacher = predict_here(trained, networks["teacher"], unseen, tmp_path / "teacher")
    student = predict_here(trained, networks["student"], unseen, tmp_path / "student")
    for folder in predicted:
        labels = read_predictions(folder)
        assert len(labels) == sum(raw_data.scan_image(number).size for number in (20, 21))
        assert len(np.unique(labels)) > 1
        # rounding depends on the number of threads: a voxel in a thousand may fall to the other side
        assert np.mean(labels != teacher) <= 0.001 < 0.003 < np.mean(labels != student)


def predict_here(training, weights, images, folder):
    """Labels by nnU-Net's predictor in this process, with the weights given."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False, verbose=False
    )
    predictor.initialize_from_trained_model_folder(str(training.output.parent), (0,), "checkpoint_final.pth")
    predictor.list_of_parameters = [weights]
    folder.mkdir()
    predictor.predict_from_files_sequential(str(images), str(folder))
    return read_predictions(folder)


def read_predictions(folder):
    """All voxels of both scans, one after the other."""
    files = [folder / f"scan_{number}.nii.gz" for number in (20, 21)]
    return np.concatenate([sitk.GetArrayFromImage(sitk.ReadImage(str(file))).ravel() for file in files])
