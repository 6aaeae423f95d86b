"""Folds over labelled scans."""

import json

from nnunet_gmabs.data.splits import agree, make_folds, splits_file, update_folds
from nnunet_gmabs.data.splits_file import SplitsFile

NAMES = [f"scan_{number:02d}" for number in range(12)]


def test_five_folds_are_those_that_nnunet_would_draw_over_the_labelled_scans():
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    assert make_folds(NAMES[::-1]) == generate_crossval_split(NAMES, seed=12345, n_splits=5)


def test_every_labelled_scan_is_validated_once_from_five_scans_on():
    for number in range(5, 13):
        folds = make_folds(NAMES[:number])
        assert sorted(name for fold in folds for name in fold["val"]) == NAMES[:number]
        assert all(sorted(fold["train"] + fold["val"]) == NAMES[:number] for fold in folds)


def test_fewer_than_five_scans_are_all_trained_and_validated_on_in_every_fold():
    for number in range(1, 5):
        assert make_folds(NAMES[:number]) == [{"train": NAMES[:number], "val": NAMES[:number]}] * 5


def test_folds_are_plain_text():
    assert json.loads(json.dumps(make_folds(NAMES))) == make_folds(NAMES)


def test_newly_labelled_scans_join_every_training_part_and_validation_stays():
    folds = make_folds(NAMES[:6])
    updated = update_folds(folds, NAMES[:8])
    for before, after in zip(folds, updated, strict=True):
        assert after["val"] == before["val"]
        assert after["train"] == before["train"] + NAMES[6:8]


def test_unchanged_labels_leave_the_folds_alone():
    folds = make_folds(NAMES[:7])
    assert update_folds(folds, NAMES[:7]) == folds


def test_scans_that_lost_their_labels_go_from_both_parts():
    updated = update_folds(make_folds(NAMES[:10]), NAMES[1:10])
    assert all(NAMES[0] not in fold["train"] + fold["val"] for fold in updated)
    assert sorted(name for fold in updated for name in fold["val"]) == NAMES[1:10]


def test_a_fold_that_would_be_empty_gets_new_folds_for_all():
    folds = make_folds(NAMES[:5])  # one scan each for validation
    assert update_folds(folds, NAMES[1:6]) == make_folds(NAMES[1:6])


def test_files_agree_whatever_the_order_of_the_scans(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    second.write_text(json.dumps([{"val": ["c"], "train": ["b", "a"]}]))
    assert agree(first, second)
    second.write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}]))
    assert not agree(first, second)


def test_labelled_scans_that_a_users_folds_leave_out_are_named(tmp_path):
    """Until they were drawn in they were learned from as unlabelled scans."""
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    path = splits_file(tmp_path)
    path.write_text(json.dumps(folds))
    said = []

    SplitsFile(tmp_path / "raw", tmp_path, said.append).update(["a", "b", "c", "d"], [])

    assert said[0] == f"kept: {path} (yours)" and json.loads(path.read_text()) == folds
    assert len(said) == 2 and said[1].startswith(f"warning: {path} has c, d in no fold")
    SplitsFile(tmp_path / "raw", tmp_path, said.append).update(["a", "b"], [])
    assert said[2:] == said[:1]
