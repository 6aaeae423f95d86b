"""What the end-to-end tests share: two tiny data sets, prepared once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Two classes, one channel, all configurations; 3 labelled scans of 7."""
    folder = tmp_path_factory.mktemp("project")
    return tiny.make_project(folder, "Dataset101_Tiny", ("2d", "3d_fullres", "3d_lowres"))


@pytest.fixture(scope="session")
def regions(tmp_path_factory):
    """Two channels, and regions that contain one another."""
    return tiny.make_project(
        tmp_path_factory.mktemp("regions"),
        "Dataset102_Regions",
        channels=("T1", "T2"),
        labels={"background": 0, "both": [1, 2], "right": [2], "ignore": 3},
        regions_class_order=[1, 2],
    )


@pytest.fixture(scope="session")
def of_size(project, tmp_path_factory):
    """The tiny data set with plans of a batch size."""

    def copy(batch_size):
        own = project.copy(tmp_path_factory.mktemp(f"batch_of_{batch_size}"))
        plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
        plans["configurations"]["3d_fullres"]["batch_size"] = batch_size
        own.edit(f"{tiny.PLANS}.json", **plans)
        return own

    made = {}
    return lambda batch_size: made.setdefault(batch_size, copy(batch_size))


@pytest.fixture(scope="session")
def commands(project, tmp_path_factory):
    """Trainings by the real nnUNetv2_train, two at a time: name -> (Training, Future of what it printed)."""
    folder = tmp_path_factory.mktemp("commands")
    trainings = {
        name: tiny.Training(project, folder / trainer, trainer, fold=fold, workers=workers)
        for name, trainer, workers, fold in (
            ("mean teacher", tiny.MEAN_TEACHER, 0, "0"),
            ("sparse, a data worker", tiny.SPARSE, 1, "all"),
        )
    }
    with ThreadPoolExecutor(2) as pool:
        yield {name: (training, pool.submit(training.command)) for name, training in trainings.items()}


@pytest.fixture(scope="session")
def trained(commands):
    """The mean teacher that nnUNetv2_train has made without data workers."""
    training, printed = commands["mean teacher"]
    printed.result()
    return training
