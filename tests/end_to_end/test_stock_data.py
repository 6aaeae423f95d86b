"""Our trainers on data that stock nnUNetv2_plan_and_preprocess has prepared."""

import json
import os

import numpy as np
import pytest
import raw_data
import tiny
from tiny import SPARSE, Project, Training

from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """All scans have label files, those of unlabelled scans all ignore; nnU-Net's own command prepared them."""
    project = Project(tmp_path_factory.mktemp("stock"), "Dataset103_Stock")
    for path in project.variables().values():
        os.mkdir(path)
    raw_data.write_raw(project.raw, 6, (0, 1, 2), raw_data.SPARSE_LABELS)
    for number in (3, 4, 5):
        ignore = np.full(raw_data.scan_shape(number), raw_data.IGNORE, np.uint8)
        raw_data.write_labels(project.raw, number, None, ignore)
    tiny.run_command(
        "nnUNetv2_plan_and_preprocess",
        *("-d", project.number, "-c", "3d_fullres", "-npfp", "1", "-np", "1"),
        environment={**os.environ, **project.variables(), "nnUNet_n_proc_DA": "1"},  # its planner dies of 0
    )
    tiny.write_tiny_plans(project.pre)
    return project


def test_expert_files_are_made_and_training_goes_on(stock, tmp_path):
    own = stock.copy(tmp_path)
    training = Training(own, tmp_path, fold="all")
    training.here()
    made = own.pre / "nnUNetPlans_3d_fullres_gmabs"
    assert sorted(path.name for path in made.glob("*_expert.b2nd")) == [f"scan_0{i}_expert.b2nd" for i in range(6)]
    assert "3 labelled scans, 3 unlabelled ones" in training.log()
    assert tiny.load(training.final)["current_epoch"] == 4
    scans = training.build().scans
    assert (scans.labelled, scans.unlabelled) == ([f"scan_0{i}" for i in range(3)], [f"scan_0{i}" for i in range(3, 6)])


def test_sparse_trains_a_fold_of_the_users_splits(stock, tmp_path):
    own = stock.copy(tmp_path)
    splits = [{"train": ["scan_00", "scan_01"], "val": ["scan_02"]}]
    (own.pre / "splits_final.json").write_text(json.dumps(splits))
    training = Training(own, tmp_path, SPARSE)
    training.here()
    assert "2 labelled scans, 3 unlabelled ones (not used), validation on 1" in training.log()


@pytest.mark.parametrize(
    ("normalisation", "mask"), [("CTNormalization", False), ("ZScoreNormalization", True)], ids=["CT", "mask"]
)
def test_where_it_matters_the_data_are_refused_and_prepare_is_named(normalisation, mask, stock, tmp_path):
    own = stock.copy(tmp_path)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"] |= {"normalization_schemes": [normalisation], "use_mask_for_norm": [mask]}
    own.edit(f"{tiny.PLANS}.json", **plans)
    with pytest.raises(InputError, match=rf"preprocessed by stock nnU-Net.*Run `gmabs prepare -p {tiny.PLANS}"):
        Training(own, tmp_path, fold="all").here()
    assert not (own.pre / "nnUNetPlans_3d_fullres_gmabs").exists()
