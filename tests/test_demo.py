import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nnunet_gmabs.commands.demo import free_folder
from nnunet_gmabs.demo import run
from nnunet_gmabs.demo.nnunet_commands import Workplace, find_command
from nnunet_gmabs.demo.run import DemoOptions
from nnunet_gmabs.demo.side_by_side import Step, count_in_file, run_side_by_side
from nnunet_gmabs.demo.stock import Schedule, with_trainer_folder, write_stock_trainer
from nnunet_gmabs.demo.synthetic import write_data_set
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.scores import read_scores


def step(title, code, tmp_path, total=1):
    log = tmp_path / f"{title}.log"
    command = [sys.executable, "-c", code]
    return Step(title, command, {**os.environ, "PYTHONUNBUFFERED": "1"}, log, total, lambda: count_in_file(log, "done"))


@pytest.mark.parametrize(
    ("iterations", "expected"), [(600, (12, 50)), (601, (13, 50)), (49, (1, 49)), (1, (1, 1)), (100, (2, 50))]
)
def test_a_schedule_has_at_least_the_iterations_asked_for(iterations, expected):
    schedule = Schedule.of(iterations)

    assert (schedule.epochs, schedule.iterations_per_epoch) == expected
    assert iterations <= schedule.iterations < iterations + 50


@pytest.mark.parametrize(
    ("kind", "expected", "base"),
    [
        ("stock", "nnUNetTrainerStock_3x7_seed5", "nnUNetTrainer"),
        ("stock, no mirroring", "nnUNetTrainerStockNoMirroring_3x7_seed5", "nnUNetTrainerNoMirroring"),
    ],
)
def test_nnunet_finds_the_stock_trainer_and_it_overrides_nothing_but_its_constructor(
    kind, expected, base, tmp_path, monkeypatch
):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    name = write_stock_trainer(tmp_path / "trainers", Schedule(3, 7), 5, kind)
    monkeypatch.setenv("nnUNet_extTrainer", with_trainer_folder({}, tmp_path / "trainers")["nnUNet_extTrainer"])

    found = recursive_find_trainer_class_by_name(name)

    assert name == expected
    assert found.__bases__ == (recursive_find_trainer_class_by_name(base),)
    own = {key for key in vars(found) if not (key.startswith("__") and key != "__init__")}
    assert own == {"__init__"}


def test_the_users_own_trainer_folders_are_kept_and_ours_is_added_once(tmp_path):
    once = with_trainer_folder({"nnUNet_extTrainer": "/mine", "HOME": "/home"}, tmp_path)
    twice = with_trainer_folder(once, tmp_path)

    assert once == twice == {"nnUNet_extTrainer": f"/mine{os.pathsep}{tmp_path}", "HOME": "/home"}


def test_all_rows_train_equally_long(tmp_path):
    place, schedule = Workplace(tmp_path, threads=1), Schedule(3, 7, 2)

    stock, name = place.train(902, "stock", schedule, 4, "stock, training")
    ours, _ = place.train(902, "nnUNetTrainerSparse", schedule, 4, "sparse, training", {"relabel": {"every": 0.1}})

    text = (tmp_path / "trainers" / f"{name}.py").read_text()
    for line in ("num_epochs = 3", "num_iterations_per_epoch = 7", "num_val_iterations_per_epoch = 2", "seed(4)"):
        assert line in text
    assert json.loads(Path(ours.environment["nnUNet_gmabs_config"]).read_text()) == {
        "num_epochs": 3,
        "num_iterations_per_epoch": 7,
        "num_val_iterations_per_epoch": 2,
        "save_every": 3,
        "seed": 4,
        "relabel": {"every": 0.1},
    }
    assert str(tmp_path / "trainers") in stock.environment["nnUNet_extTrainer"]
    for training in (stock, ours):
        assert training.environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
        assert training.environment["OMP_NUM_THREADS"] == "1"


def test_steps_of_a_job_run_in_turn_and_jobs_side_by_side(tmp_path):
    wait_for_other = "while not os.path.exists({other!r}): time.sleep(0.05)"
    first, second = tmp_path / "first", tmp_path / "second"
    meet = "import os, time; open({own!r}, 'w'); " + "\n" + wait_for_other
    jobs = [
        [
            step("a1", meet.format(own=str(first), other=str(second)), tmp_path),
            step("a2", f"import os; assert os.path.exists({str(first)!r}); print('done')", tmp_path),
        ],
        [step("b1", meet.format(own=str(second), other=str(first)), tmp_path)],
    ]
    lines = []

    seconds = run_side_by_side(jobs, 2, lines.append)

    assert set(seconds) == {"a1", "a2", "b1"}
    assert sum("a2: 1/1" in line for line in lines) == 1


def test_no_more_jobs_run_than_there_are_slots(tmp_path):
    busy = str(tmp_path / "busy")
    alone = f"import os, time; os.mkdir({busy!r}); time.sleep(0.3); os.rmdir({busy!r})"

    run_side_by_side([[step(name, alone, tmp_path)] for name in "abc"], 1, lambda line: None)


def test_a_failing_command_is_shown_and_all_others_are_stopped(tmp_path):
    jobs = [
        [step("long", "import time; time.sleep(600)", tmp_path)],
        [step("bad", "print('what went wrong'); raise SystemExit(3)", tmp_path), step("never", "", tmp_path)],
    ]
    start = time.monotonic()

    with pytest.raises(InputError, match=r"(?s)ended with code 3.*bad.log.*what went wrong"):
        run_side_by_side(jobs, 2, lambda line: None)

    assert time.monotonic() - start < 300
    assert not (tmp_path / "never.log").exists()


def test_no_command_goes_on_after_an_interruption(tmp_path):
    pid = tmp_path / "pid"
    long = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def interrupt():
        if pid.is_file() and pid.read_text():
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([[replace(step("long", long, tmp_path), done=interrupt)]], 1, lambda line: None)

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(InputError, match="nnUNetv2_dance: not found"):
        find_command("nnUNetv2_dance")


@pytest.mark.parametrize(("options", "message"), [({"iterations": 0}, "iterations 0"), ({"seed": -1}, "seed -1")])
def test_impossible_options_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        DemoOptions(tmp_path / "new", **options)


def test_the_demo_never_writes_into_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()

    with pytest.raises(InputError, match="is there already"):
        DemoOptions(tmp_path / "mine")
    assert free_folder(tmp_path / "mine") == tmp_path / "mine_2"
    assert free_folder(tmp_path / "other") == tmp_path / "other"


@pytest.mark.slow
def test_the_demo_goes_from_nothing_to_a_table_and_a_picture(tmp_path, monkeypatch):
    """All stations with nnU-Net's own commands, but one method, few scans and one iteration."""
    monkeypatch.setattr(run, "ROWS", {"stock nnU-Net": "stock"})
    monkeypatch.setattr(run, "TABLE_ORDER", ["stock nnU-Net"])
    monkeypatch.setattr(run, "LABELLED_SCANS", 2)
    monkeypatch.setattr(run, "CPU_SECONDS", 0.02)
    monkeypatch.setattr(run, "write_data_set", partial(write_data_set, train=3, test=2))
    lines = []

    result = run.run_demo(DemoOptions(tmp_path / "demo", iterations=1), lines.append)

    assert result.table.splitlines()[0].split() == ["Dice,", "%", "organ", "tube", "mean", "minutes"]
    assert result.table.splitlines()[2].startswith("stock nnU-Net")
    assert {(score.cell, score.scan, score.label) for score in read_scores(result.scores)} == {
        ("stock nnU-Net", f"scan_{number:03d}", label) for number in (3, 4) for label in (1, 2)
    }
    assert "stock nnU-Net" in result.page.read_text()
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    assert any("nnUNetv2_train 902 3d_fullres 0 -tr nnUNetTrainerStock_1x1_seed0" in line for line in lines)
    log = (tmp_path / "demo" / "logs" / "stock_nnU-Net_training.log").read_text()
    assert "This split has 2 training and 1 validation cases." in log
