"""Which scans a fold learns from: unlabelled ones always join the training, never the validation."""

import pytest

from nnunet_gmabs.data.streams import FoldScans, scans_of_fold
from nnunet_gmabs.errors import InputError

SCANS = ["a", "b", "c", "d", "u", "v"]
LABELLED = {"a", "b", "c", "d"}
SPLITS = [{"train": ["c", "a"], "val": ["b"]}, {"train": ["b", "u"], "val": ["c", "a"]}]
FILE = "pre/splits_final.json"


def scans(fold, splits=SPLITS, labelled=LABELLED, identifiers=SCANS):
    return scans_of_fold(identifiers, labelled, splits, fold, FILE)


def test_labelled_scans_follow_the_split_and_unlabelled_ones_are_added():
    assert scans(0) == FoldScans(labelled=["a", "c"], unlabelled=["u", "v"], validation=["b"], left_out=["d"])


def test_an_unlabelled_scan_named_for_training_is_not_doubled():
    assert scans(1) == FoldScans(labelled=["b"], unlabelled=["u", "v"], validation=["a", "c"], left_out=["d"])


def test_labelled_scans_of_neither_part_are_not_used_at_all():
    chosen = scans(0)
    assert "d" not in chosen.labelled + chosen.unlabelled + chosen.validation


def test_the_fold_may_be_given_as_text():
    assert scans("1") == scans(1)


def test_fold_all_trains_and_validates_on_every_labelled_scan_and_needs_no_split():
    assert scans("all", splits=[]) == FoldScans(sorted(LABELLED), ["u", "v"], sorted(LABELLED))


def test_the_order_of_the_input_does_not_matter():
    assert scans(0, identifiers=SCANS[::-1]) == scans(0)


@pytest.mark.parametrize("fold", [2, -1, 7])
def test_a_fold_that_is_not_there_is_named(fold):
    with pytest.raises(InputError, match=rf"{FILE}: has folds 0 to 1, no fold {fold}"):
        scans(fold)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_name_that_is_no_scan_is_named(part):
    split = {"train": ["a"], "val": ["b"]}
    split[part] = [*split[part], "zebra"]
    with pytest.raises(InputError, match=f"{FILE}: names 'zebra'.*gmabs prepare"):
        scans(0, [split])


def test_an_unlabelled_scan_for_validation_is_named():
    with pytest.raises(InputError, match=f"{FILE}: fold 0 validates on 'v'.*keep unlabelled scans out"):
        scans(0, [{"train": ["a"], "val": ["b", "v"]}])


@pytest.mark.parametrize("train", [[], ["u", "v"]])
def test_a_fold_without_labelled_scan_for_training_is_refused(train):
    with pytest.raises(InputError, match=f"{FILE}: fold 0 has no labelled scan for training"):
        scans(0, [{"train": train, "val": ["b"]}])


def test_fold_all_without_any_labelled_scan_is_refused():
    with pytest.raises(InputError, match="fold all has no labelled scan"):
        scans("all", labelled=set())
