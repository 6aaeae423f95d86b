"""Settings and folders that all tests share."""

import os

# Before torch, blosc2 and nnU-Net are imported: they read these once. One thread each keeps results equal on every
# machine, and two cores free for two things.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS", "nnUNet_def_n_proc"):
    os.environ[_name] = "1"
os.environ["nnUNet_n_proc_DA"] = "0"  # a test that needs data workers says so itself
os.environ["nnUNet_compile"] = "f"
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def pytest_collection_modifyitems(items):
    """With several processes the tests of a file stay in one, for they share what is slow to make."""
    for item in items:
        of_all_files = "commands" in item.fixturenames
        item.add_marker(pytest.mark.xdist_group("commands" if of_all_files else item.path.name))


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    """nnU-Net's three folders, empty, in this test's own folder; a dict from variable to Path."""
    folders = {name: tmp_path / name for name in NNUNET_FOLDERS}
    for name, folder in folders.items():
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    return folders
