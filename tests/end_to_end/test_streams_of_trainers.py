"""Which scans our trainers and stock nnU-Net learn from and validate on, on one prepared data set."""

import json
import os

import pytest
import tiny
import torch
from tiny import MEAN_TEACHER, SPARSE, Training

from nnunet_gmabs.demo.stock import Schedule, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow
LABELLED = ["scan_00", "scan_01", "scan_02"]
UNLABELLED = ["scan_03", "scan_04", "scan_05", "scan_06"]


def keys(augmenter, batches):
    """Identifiers of so many batches: a list of (labelled samples, unlabelled samples)."""
    drawn = [next(augmenter) for _ in range(batches)]
    return [
        tuple([key for key, is_labelled in zip(b["keys"], b["labelled"], strict=True) if is_labelled == part])
        for b in drawn
        for part in (True, False)
    ]


@pytest.mark.parametrize("fold", ["0", "all"])
def test_unlabelled_scans_are_in_the_unlabelled_stream_and_never_in_validation(fold, project, tmp_path):
    trainer = Training(project, tmp_path, fold=fold).build()
    assert trainer.do_split() == (LABELLED + UNLABELLED, LABELLED)
    training, validation = trainer.get_dataloaders()
    labelled, unlabelled = (set().union(*keys(training, 20)[part::2]) for part in (0, 1))
    assert labelled == set(LABELLED) and unlabelled == set(UNLABELLED)
    labelled, unlabelled = (set().union(*keys(validation, 10)[part::2]) for part in (0, 1))
    assert labelled == set(LABELLED) and unlabelled == set()


def test_sparse_learns_from_labelled_scans_alone(project, tmp_path):
    training, _ = Training(project, tmp_path, SPARSE).build().get_dataloaders()
    labelled, unlabelled = (set().union(*keys(training, 20)[part::2]) for part in (0, 1))
    assert labelled == set(LABELLED) and unlabelled == set()


@pytest.mark.parametrize(
    ("plans", "settings", "labelled", "size"),
    [
        (2, {"batch_share": 1.25, "labelled_share": 0.8}, 2, 3),  # the mean teacher's: Sparse's samples, others on top
        (1, {"batch_share": 1.25, "labelled_share": 0.8}, 1, 2),
        (4, {"batch_share": 1.25, "labelled_share": 0.8}, 4, 5),
        (3, {"batch_share": 0.5, "labelled_share": 0.5}, 0.75, 2),
        (3, {"batch_share": 1.0, "labelled_share": 1.0}, 3, 3),
    ],
)
def test_a_batch_that_is_rounded_up_has_no_more_labelled_samples(plans, settings, labelled, size, of_size, tmp_path):
    training, _ = Training(of_size(plans), tmp_path, settings={"streams": settings}).build().get_dataloaders()
    batches = [next(training)["labelled"] for _ in range(8)]
    assert {len(batch) for batch in batches} == {size}
    assert sum(int(batch.sum()) for batch in batches) == 8 * labelled


def test_without_unlabelled_scans_that_stream_draws_from_labelled_ones(project, tmp_path):
    own = project.copy(tmp_path)
    for identifier in UNLABELLED:
        for path in (own.pre / "nnUNetPlans_3d_fullres").glob(f"{identifier}*"):
            path.unlink()
    training = Training(own, tmp_path)
    training.here()
    assert "no unlabelled scan: the unlabelled stream draws from the labelled scans" in training.log()
    assert tiny.load(training.final)["gmabs"]["iteration"] == 12


def test_users_splits_are_honoured_and_unlabelled_scans_join_the_training(project, tmp_path):
    own = project.copy(tmp_path)
    splits = [{"train": ["scan_00", "scan_02"], "val": ["scan_01"]}]
    (own.pre / "splits_final.json").write_text(json.dumps(splits))
    trainer = Training(own, tmp_path).build()
    assert trainer.do_split() == (["scan_00", "scan_02", *UNLABELLED], ["scan_01"])


def test_an_unlabelled_validation_scan_is_refused(project, tmp_path):
    own = project.copy(tmp_path)
    splits = [{"train": ["scan_00", "scan_01"], "val": ["scan_02", "scan_05"]}]
    (own.pre / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match=r"splits_final\.json: fold 0 validates on 'scan_05', which has no labelled"):
        Training(own, tmp_path).here()


def test_stock_nnunet_trains_on_labelled_scans_alone(project, tmp_path):
    name = write_stock_trainer(tmp_path / "stock", Schedule(2, 3), seed=0)
    variables = {"nnUNet_extTrainer": with_trainer_folder(dict(os.environ), tmp_path / "stock")["nnUNet_extTrainer"]}
    training = Training(project, tmp_path, name, variables=variables)
    assert training.build().do_split() == (LABELLED, LABELLED)
    training.here()
    assert torch.load(training.final, weights_only=False)["current_epoch"] == 2


def test_a_scan_labelled_later_joins_the_labelled_stream(project, tmp_path):
    import raw_data

    from nnunet_gmabs.data.prepare import PrepareOptions, prepare

    own = project.copy(tmp_path)
    raw_data.write_labels(own.raw, 4)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in own.variables().items():
            patch.setenv(variable, value)
        prepare(PrepareOptions(own.dataset, configurations=("3d_fullres",), plans=tiny.PLANS))
    scans = Training(own, tmp_path, MEAN_TEACHER).build().scans
    assert scans.labelled == [*LABELLED, "scan_04"]
    assert scans.unlabelled == ["scan_03", "scan_05", "scan_06"]
    assert scans.validation == LABELLED
