"""Rounds of pseudo labels on disk: readers see complete rounds only, the newest of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_gmabs.data.pseudo_labels import (
    clear_rounds,
    complete_round,
    finished,
    is_complete,
    newest_pseudo_labels,
    newest_round,
    read_figures,
    read_pseudo_labels,
    remove_rounds_after,
    remove_rounds_before,
    round_folder,
    write_pseudo_labels,
)
from nnunet_gmabs.errors import InputError

SHAPE = (5, 6, 7)


def write(folder, number, identifier="a", value=1):
    write_pseudo_labels(folder, number, identifier, np.full(SHAPE, value), {"slices": 3, "changed": float("nan")})


def test_what_is_written_is_read(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, SHAPE)
    write_pseudo_labels(tmp_path, 2, "a", labels, {"slices": 3, "views": {"0": [[1, 2, 3]]}})
    path = round_folder(tmp_path, 2) / "a.b2nd"
    array = read_pseudo_labels(path, SHAPE)
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[:], labels)
    assert read_figures(path) == {"slices": 3, "views": {"0": [[1, 2, 3]]}}
    assert finished(tmp_path, 2) == ["a"]


def test_a_round_is_seen_when_it_is_complete_and_not_before(tmp_path):
    assert newest_pseudo_labels(tmp_path / "not there", "a", SHAPE) is None
    write(tmp_path, 1, value=1)
    assert newest_pseudo_labels(tmp_path, "a", SHAPE) is None
    complete_round(tmp_path, 1)
    write(tmp_path, 2, value=2)
    assert newest_pseudo_labels(tmp_path, "a", SHAPE)[0, 0, 0] == 1
    complete_round(tmp_path, 2)
    assert newest_pseudo_labels(tmp_path, "a", SHAPE)[0, 0, 0] == 2
    assert newest_pseudo_labels(tmp_path, "other", SHAPE) is None


def test_rounds_are_counted_not_spelled(tmp_path):
    for number in (2, 999, 1000):
        complete_round(tmp_path, number)
    assert newest_round(tmp_path) == 1000


def test_older_rounds_go_and_files_in_use_stay_readable(tmp_path):
    write(tmp_path, 1, value=1)
    complete_round(tmp_path, 1)
    opened = newest_pseudo_labels(tmp_path, "a", SHAPE)
    write(tmp_path, 2, value=2)
    complete_round(tmp_path, 2)
    remove_rounds_before(tmp_path, 2)
    assert not round_folder(tmp_path, 1).exists() and is_complete(tmp_path, 2)
    assert opened[0, 0, 0] == 1
    clear_rounds(tmp_path)
    assert newest_round(tmp_path) is None


def test_newer_rounds_go_and_others_stay(tmp_path):
    for number in (1, 2, 3):
        write(tmp_path, number)
        complete_round(tmp_path, number)
    remove_rounds_after(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["round_001"] and is_complete(tmp_path, 1)


@pytest.mark.slow
def test_a_training_continued_from_an_older_checkpoint_learns_from_its_own_round(tmp_path, monkeypatch):
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS, nnUNetTrainerMeanTeacher
    from nnunet_gmabs.trainers.ranks import Ranks

    for number in (1, 2):
        write(tmp_path / "pseudo_labels", number)
        complete_round(tmp_path / "pseudo_labels", number)
    learned_from = []
    monkeypatch.setattr(
        nnUNetTrainerMeanTeacher, "on_train_start", lambda self: learned_from.append(newest_round(self.pseudo_labels))
    )
    trainer = object.__new__(nnUNetTrainerGMABS)
    trainer.__dict__ |= {
        "output_folder": str(tmp_path),
        "ranks": Ranks(),
        "_resume_from": {},  # of a checkpoint
        **{"round": 1, "round_finished": True, "current_epoch": 3, "num_epochs": 3},
        "relabeller": SimpleNamespace(on=lambda scans: None),
        **{"scans_to_relabel": lambda: None, "relabel_if_due": lambda: None},
    }
    trainer.on_train_start()
    assert learned_from == [1]


@pytest.mark.slow
def test_a_finished_training_does_not_make_up_for_a_round_that_failed(tmp_path, monkeypatch):
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS, nnUNetTrainerMeanTeacher
    from nnunet_gmabs.trainers.ranks import Ranks

    rounds = []
    monkeypatch.setattr(nnUNetTrainerMeanTeacher, "on_train_start", lambda self: None)
    for epoch in (3, 2):
        trainer = object.__new__(nnUNetTrainerGMABS)
        trainer.__dict__ |= {
            "output_folder": str(tmp_path),
            "ranks": Ranks(),
            "_resume_from": {},  # of a checkpoint
            **{"round": 1, "round_finished": False, "current_epoch": epoch, "num_epochs": 3},
            "relabeller": SimpleNamespace(on=lambda scans: SimpleNamespace(missing=lambda number: ["a"])),
            **{"scans_to_relabel": lambda: None, "relabel_if_due": lambda: None},
            "run_round": lambda epoch=epoch: rounds.append(epoch),
        }
        trainer.on_train_start()
    assert rounds == [2]


def test_a_damaged_file_counts_as_not_labelled_yet_and_is_named_when_read(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 1, "b")
    path = round_folder(tmp_path, 1) / "a.b2nd"
    path.write_bytes(path.read_bytes()[:40])
    complete_round(tmp_path, 1)
    assert finished(tmp_path, 1) == ["b"]
    with pytest.raises(InputError, match=r"round_001/a\.b2nd: cannot be read .* made anew"):
        newest_pseudo_labels(tmp_path, "a", SHAPE)


def test_another_training_grid_is_named(tmp_path):
    write(tmp_path, 1)
    complete_round(tmp_path, 1)
    with pytest.raises(InputError, match=r"a\.b2nd: shape \(5, 6, 7\), but the scan's training grid is \(5, 6, 8\)"):
        newest_pseudo_labels(tmp_path, "a", (5, 6, 8))


def test_another_format_is_refused(tmp_path):
    import blosc2

    round_folder(tmp_path, 1).mkdir(parents=True)
    blosc2.asarray(np.zeros(SHAPE, np.int16), urlpath=str(round_folder(tmp_path, 1) / "a.b2nd"))
    with pytest.raises(InputError, match="a.b2nd: cannot be read"):
        read_pseudo_labels(round_folder(tmp_path, 1) / "a.b2nd")
