"""Checkpoints that a kill, a full disk or another machine cannot spoil."""

import errno
import os
import shutil
from collections import OrderedDict, namedtuple
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.trainers.checkpoint import NAMES, PREVIOUS, load_newest_readable, plain, save, set_aside

FINAL, LATEST, BEST = NAMES
CPU = torch.device("cpu")


def content(epoch):
    return {"current_epoch": epoch, "weights": torch.full((5, 6, 7), float(epoch))}


def epoch_in(file):
    return torch.load(file, weights_only=True)["current_epoch"]


def truncate(file):
    """Half of the file is gone, as after a full disk; other names of the old content stay whole."""
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.unlink()
    file.write_bytes(half)


def load(file):
    lines = []
    return *load_newest_readable(file, CPU, lines.append), lines


# ---- plain values


def test_what_numpy_and_pathlib_left_behind_loads_with_weights_only(tmp_path):
    Point = namedtuple("Point", "x y")
    value = {
        "float": np.float32(0.5),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "text": np.str_("name"),
        "array": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "number in an array": np.array(2.5),
        "path": Path("a/b"),
        np.int64(4): [np.float64(1.5), (np.float32(2.5), None)],
        "ordered": OrderedDict(weight=torch.ones(2)),
        "point": Point(1, np.float64(2)),
        "device": torch.device("cpu"),
    }
    save(value, tmp_path / "file.pth")
    loaded = torch.load(tmp_path / "file.pth", weights_only=True)
    arrays = loaded.pop("array"), loaded.pop("number in an array")
    assert arrays[0].tolist() == [[0, 3], [1, 4], [2, 5]] and arrays[0].dtype == torch.int32
    assert arrays[1].shape == () and arrays[1].item() == 2.5
    assert torch.equal(loaded.pop("ordered")["weight"], torch.ones(2))
    assert loaded == {
        "float": 0.5,
        "int": 3,
        "bool": True,
        "text": "name",
        "path": str(Path("a/b")),
        4: [1.5, (2.5, None)],
        "point": [1, 2],
        "device": torch.device("cpu"),
    }


def test_torch_itself_refuses_numpy_numbers(tmp_path):
    torch.save({"loss": np.float32(0.5)}, tmp_path / "stock.pth")
    with pytest.raises(Exception, match="[Ww]eights"):
        torch.load(tmp_path / "stock.pth", weights_only=True)


def test_plain_leaves_its_input_alone():
    array = np.arange(3)
    value = {"a": [array]}
    plain(value)["a"][0][0] = 7
    assert value["a"][0] is array and array.tolist() == [0, 1, 2]


# ---- saving


def test_the_latest_checkpoint_before_is_kept(tmp_path):
    for epoch in (1, 2, 3):
        save(content(epoch), tmp_path / LATEST)
    assert epoch_in(tmp_path / LATEST) == 3 and epoch_in(tmp_path / PREVIOUS) == 2
    assert sorted(os.listdir(tmp_path)) == sorted([LATEST, PREVIOUS])


def test_final_and_best_leave_the_previous_one_alone(tmp_path):
    save(content(1), tmp_path / LATEST)
    save(content(2), tmp_path / LATEST)
    for name in (FINAL, BEST):
        save(content(3), tmp_path / name)
        save(content(4), tmp_path / name)
    assert epoch_in(tmp_path / PREVIOUS) == 1


def no_links(*_):
    raise OSError("no links here")


def test_the_previous_one_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    save(content(1), tmp_path / LATEST)
    save(content(2), tmp_path / LATEST)
    assert (epoch_in(tmp_path / LATEST), epoch_in(tmp_path / PREVIOUS)) == (2, 1)


def test_half_a_copy_on_a_full_disk_does_not_stay(tmp_path, monkeypatch):
    def full_disk(_, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    save(content(1), tmp_path / LATEST)
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copyfileobj", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(content(2), tmp_path / LATEST)
    assert os.listdir(tmp_path) == [LATEST] and epoch_in(tmp_path / LATEST) == 1


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [True, False])
def test_a_training_that_begins_or_goes_on_removes_what_a_kill_has_left_of_checkpoints(tmp_path, monkeypatch, resumed):
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
    from nnunet_gmabs.trainers.distributed import DistributedTrainer
    from nnunet_gmabs.trainers.ranks import Ranks

    unfinished = [".0123abcd." + LATEST, ".4567cdef." + FINAL, f".{PREVIOUS}"]
    kept = [LATEST, ".0123abcd.notes.txt", "." + LATEST] if resumed else [".0123abcd.notes.txt", "." + LATEST]
    for name in (*unfinished, *kept):
        (tmp_path / name).touch()
    trainer = object.__new__(nnUNetTrainerSparse)
    trainer.__dict__ |= {
        "output_folder": str(tmp_path),
        "ranks": Ranks(),
        "_resume_from": {} if resumed else None,
        "print_to_log_file": lambda *_: None,
    }
    monkeypatch.setattr(DistributedTrainer, "on_train_start", lambda _: None)
    trainer.on_train_start()
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "gmabs.json"])


def test_a_write_that_fails_leaves_every_file_as_it_was(tmp_path, monkeypatch):
    save(content(1), tmp_path / LATEST)
    save(content(2), tmp_path / LATEST)

    def full_disk(value, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(RuntimeError, match="No space"):
            save(content(3), tmp_path / LATEST)
    assert (epoch_in(tmp_path / LATEST), epoch_in(tmp_path / PREVIOUS)) == (2, 1)
    save(content(4), tmp_path / LATEST)
    assert (epoch_in(tmp_path / LATEST), epoch_in(tmp_path / PREVIOUS)) == (4, 2)
    assert sorted(os.listdir(tmp_path)) == sorted([LATEST, PREVIOUS])


@pytest.mark.parametrize("moment", ["os.link", "os.replace"])
def test_a_kill_at_any_moment_of_saving_leaves_a_readable_latest(tmp_path, monkeypatch, moment):
    """Kills right before and right after each of our renames and links."""
    real = getattr(os, moment.removeprefix("os."))
    for calls_until_kill in (0, 1, 2):
        for after in (False, True):
            folder = tmp_path / f"{calls_until_kill}_{after}"
            folder.mkdir()
            save(content(1), folder / LATEST)
            save(content(2), folder / LATEST)
            calls = iter(range(calls_until_kill, -1, -1))

            def dying(*args, calls=calls, after=after):
                last = next(calls, -1) == 0
                if not last or after:
                    real(*args)
                if last:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(moment, dying)
                try:
                    save(content(3), folder / LATEST)
                except KeyboardInterrupt:
                    pass
            assert epoch_in(folder / LATEST) in (2, 3)
            assert epoch_in(folder / PREVIOUS) in (1, 2)
            save(content(4), folder / LATEST)  # leftovers do not stop the next one
            assert epoch_in(folder / LATEST) == 4


# ---- loading


def test_a_readable_checkpoint_is_used_without_a_word(tmp_path):
    save(content(5), tmp_path / LATEST)
    loaded, file, lines = load(tmp_path / LATEST)
    assert torch.equal(loaded["weights"], content(5)["weights"])
    assert (loaded["current_epoch"], file, lines) == (5, tmp_path / LATEST, [])


@pytest.mark.parametrize("damage", [truncate, lambda file: file.write_bytes(b""), Path.unlink])
def test_a_damaged_latest_is_named_and_the_previous_one_used(tmp_path, damage):
    save(content(5), tmp_path / LATEST)
    save(content(6), tmp_path / LATEST)
    damage(tmp_path / LATEST)
    loaded, file, lines = load(tmp_path / LATEST)
    assert (loaded["current_epoch"], file) == (5, tmp_path / PREVIOUS)
    assert lines[0].startswith(f"{tmp_path / LATEST}: cannot be read")
    assert lines[-1] == f"{tmp_path / PREVIOUS}: used instead, epoch 5"


def test_the_furthest_of_the_others_is_used(tmp_path):
    save(content(5), tmp_path / LATEST)
    save(content(9), tmp_path / LATEST)
    save(content(7), tmp_path / BEST)
    truncate(tmp_path / LATEST)
    loaded, file, _ = load(tmp_path / LATEST)
    assert (loaded["current_epoch"], file) == (7, tmp_path / BEST)


def test_a_damaged_final_falls_back_to_latest_and_every_damaged_file_is_named(tmp_path):
    for name, epoch in ((FINAL, 9), (LATEST, 8), (BEST, 3)):
        save(content(epoch), tmp_path / name)
    truncate(tmp_path / FINAL)
    truncate(tmp_path / BEST)
    loaded, file, lines = load(tmp_path / FINAL)
    assert (loaded["current_epoch"], file) == (8, tmp_path / LATEST)
    assert [FINAL in lines[0], BEST in lines[1], LATEST in lines[2]] == [True] * 3 and len(lines) == 3


def test_nothing_readable_is_an_error_that_names_the_cure(tmp_path):
    save(content(1), tmp_path / LATEST)
    save(content(2), tmp_path / LATEST)
    truncate(tmp_path / LATEST)
    truncate(tmp_path / PREVIOUS)
    with pytest.raises(InputError, match=f"{LATEST}: cannot be read.*without --c"):
        load(tmp_path / LATEST)


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"current_epoch": 3, "evil": Evil()}, tmp_path / LATEST)
    with pytest.raises(InputError):
        load(tmp_path / LATEST)
    assert not (tmp_path / "ran").exists()


# ---- an earlier run


def test_checkpoints_of_an_earlier_run_are_set_aside(tmp_path):
    for name in (FINAL, LATEST, LATEST, BEST):
        save(content(1), tmp_path / name)
    (tmp_path / "plans.json").touch()
    assert set_aside(tmp_path) == [FINAL, LATEST, BEST, PREVIOUS]
    assert sorted(os.listdir(tmp_path)) == ["plans.json", "previous_run"]
    assert sorted(os.listdir(tmp_path / "previous_run")) == sorted([*NAMES, PREVIOUS])


def test_an_even_earlier_run_makes_room(tmp_path):
    for epoch in (1, 2):
        save(content(epoch), tmp_path / LATEST)
        set_aside(tmp_path)
    assert epoch_in(tmp_path / "previous_run" / LATEST) == 2


def test_nothing_to_set_aside_makes_no_folder(tmp_path):
    assert set_aside(tmp_path) == [] and os.listdir(tmp_path) == []


def test_names_are_nnunets_own_in_the_order_in_which_it_looks_for_them():
    source = Path(find_spec("nnunetv2.run.run_training").origin).read_text(encoding="utf-8")  # slow to import
    source = source[source.index("def maybe_load_checkpoint") :]
    places = [source.index(name) for name in NAMES]
    assert places == sorted(places)
