"""What the end-to-end tests share: two tiny data sets, prepared once."""

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
        ("3d_fullres",),
        channels=("T1", "T2"),
        labels={"background": 0, "both": [1, 2], "right": [2], "ignore": 3},
        regions_class_order=[1, 2],
    )
