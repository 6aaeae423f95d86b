"""Label files that `gmabs prepare` makes: never over what somebody else saves while it runs."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from raw_data import IGNORE, LABELS, SPARSE_LABELS, name, snapshot, write_dataset_json, write_labels, write_raw

from nnunet_gmabs.annotation.journal import changing
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data import prepare as module
from nnunet_gmabs.data.cases import find_cases
from nnunet_gmabs.data.prepare import PrepareOptions, prepare
from nnunet_gmabs.data.unlabelled import apply_changes, plan_changes
from nnunet_gmabs.data.verify import verify_cases
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback

MEANWHILE = r"scan_04.nii.gz: .* while gmabs prepare was running; run it again"


@pytest.fixture
def raw(nnunet_folders):
    """Scans 0 to 2 have labels, 3 to 5 have none."""
    return write_raw(nnunet_folders["nnUNet_raw"] / "Dataset001_Tiny", labels=SPARSE_LABELS)


def prepare_tiny():
    return prepare(PrepareOptions("1", processes=1), lambda text: None)


def label_path(raw, number):
    return raw / "labelsTr" / f"{name(number)}.nii.gz"


def values(path):
    return np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).tolist()


def complete(raw, meanwhile=lambda: None):
    """The label files that are missing, without the rest of `gmabs prepare`."""
    folder, workers, rollback = RawFolder(raw), Workers(1), Rollback()
    cases = find_cases(folder)
    changes = plan_changes(folder, cases, verify_cases(folder, cases, {}, workers))
    meanwhile()
    try:
        apply_changes(folder, changes, rollback, workers)
    except BaseException:
        rollback.restore()
        raise


def at_nnunets_check(monkeypatch, do):
    from nnunetv2.experiment_planning import verify_dataset_integrity

    monkeypatch.setattr(verify_dataset_integrity, "verify_dataset_integrity", lambda *_: do())


def test_a_label_file_that_appears_while_scans_are_checked_is_kept_and_named(raw, nnunet_folders, monkeypatch):
    check = module.verify_cases
    before = {}

    def check_and_draw(*arguments):
        facts = check(*arguments)
        write_labels(raw, 4)
        before.update(snapshot(*nnunet_folders.values()))
        return facts

    monkeypatch.setattr(module, "verify_cases", check_and_draw)
    with pytest.raises(InputError, match=MEANWHILE):
        prepare_tiny()
    after = snapshot(*nnunet_folders.values())
    assert {path: after.get(path) for path in before if path.is_file()} == {
        path: content for path, content in before.items() if path.is_file()
    }
    assert sorted(path.name[:7] for path in (raw / "labelsTr").iterdir()) == [name(n) for n in (0, 1, 2, 4)]


def test_an_interrupted_run_removes_the_files_it_made_and_no_other(raw, monkeypatch):
    drawn = []

    def draw_and_interrupt():
        assert values(label_path(raw, 4)) == [IGNORE]
        write_labels(raw, 4)
        drawn.append(label_path(raw, 4).read_bytes())
        raise KeyboardInterrupt

    at_nnunets_check(monkeypatch, draw_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_tiny()
    assert [label_path(raw, 4).read_bytes()] == drawn
    assert sorted(path.name[:7] for path in (raw / "labelsTr").iterdir()) == [name(n) for n in (0, 1, 2, 4)]


@pytest.mark.parametrize("number", [1, 4], ids=["of a labelled scan", "that was just made"])
def test_a_label_file_that_changes_is_never_taken_for_one_that_was_made(raw, monkeypatch, number):
    at_nnunets_check(monkeypatch, lambda: write_labels(raw, number, [(0, 7)]))
    with pytest.raises(InputError, match=rf"scan_0{number}.nii.gz: .* while gmabs prepare was running; run it again"):
        prepare_tiny()
    assert values(label_path(raw, number)) == [0, 1, 2, IGNORE]
    assert not (raw / "gmabs" / "made_labels.json").exists()


def test_a_label_file_that_vanishes_is_named(raw, monkeypatch):
    at_nnunets_check(monkeypatch, lambda: label_path(raw, 1).unlink())
    with pytest.raises(InputError, match=r"scan_01.nii.gz: .* while gmabs prepare was running; run it again"):
        prepare_tiny()


def test_no_label_file_is_made_while_another_command_changes_labels(raw):
    def without_lock():
        return {path: content for path, content in snapshot(raw).items() if "lock" not in path.name}

    with changing(raw):
        before = without_lock()
        with pytest.raises(InputError, match="another gmabs command that changes Dataset001_Tiny is running already"):
            complete(raw)
        assert without_lock() == before


def test_a_file_made_earlier_is_made_anew_only_if_nobody_has_drawn_in_it(raw):
    complete(raw)
    write_dataset_json(raw, LABELS | {"third": 3, "ignore": 4})
    with pytest.raises(InputError, match=MEANWHILE):
        complete(raw, meanwhile=lambda: write_labels(raw, 4))
    assert values(label_path(raw, 4)) == [0, 1, 2, IGNORE]
    assert values(label_path(raw, 3)) == values(label_path(raw, 5)) == [IGNORE]


def test_nothing_but_label_files_is_left_in_labelstr(raw):
    complete(raw)
    assert sorted(path.name for path in (raw / "labelsTr").iterdir()) == [f"{name(n)}.nii.gz" for n in range(6)]
    assert sorted(path.name for path in (raw / "gmabs").iterdir()) == ["made_labels.json"]
    assert set(json.loads((raw / "gmabs" / "made_labels.json").read_text())) == {name(n) for n in (3, 4, 5)}


def test_a_link_to_a_label_file_that_is_not_there_is_named_and_kept(raw):
    label_path(raw, 4).symlink_to(raw / "not_fetched.nii.gz")
    with pytest.raises(InputError, match=r"scan_04.nii.gz: is a link to a file that is not there"):
        complete(raw)
    assert label_path(raw, 4).is_symlink() and not label_path(raw, 3).exists()


def test_label_files_are_made_on_the_disk_of_labelstr(raw, monkeypatch):
    disk = raw.parent.parent / "another_disk"
    (raw / "labelsTr").rename(disk)
    (raw / "labelsTr").symlink_to(disk)
    replace, link = os.replace, os.link

    def on_one_disk(do):
        def move(source, target):
            if len({path.resolve().is_relative_to(disk) for path in (Path(source).parent, Path(target).parent)}) == 2:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            do(source, target)

        return move

    monkeypatch.setattr(os, "replace", on_one_disk(replace))
    monkeypatch.setattr(os, "link", on_one_disk(link))
    complete(raw)
    assert sorted(path.name for path in disk.iterdir()) == [f"{name(n)}.nii.gz" for n in range(6)]
