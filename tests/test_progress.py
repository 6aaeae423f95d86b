"""The log of an epoch: means, CSV, picture."""

import csv
import math

import pytest

from nnunet_gmabs.trainers.progress import LOG_FILE, PLOT_FILE, EpochMeans, plot_log, remove_logs, write_log

HISTORY = [
    {"epoch": 0, "loss/supervised": 0.5, "weight/consistency": 0.25},
    {"epoch": 1, "loss/supervised": 0.375, "weight/consistency": 0.5, "pseudo_dice/teacher": math.nan},
]


def read(folder):
    with open(folder / LOG_FILE, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_means_by_hand_each_over_its_own_number_of_values():
    means = EpochMeans()
    means.add({"a": 1.0, "b": 5.0})
    means.add({"a": 2.0})
    means.add({"a": 6.0, "c": 0.0})
    assert means.take() == {"a": 3.0, "b": 5.0, "c": 0.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_count(value):
    means = EpochMeans()
    means.add({"a": 1.0, "b": value})
    means.add({"a": value, "b": value})
    means.add({"a": 4.0})
    taken = means.take()
    assert taken["a"] == 2.5 and math.isnan(taken["b"])


def test_means_of_several_processes_run_over_the_values_of_all():
    here, there = EpochMeans(), EpochMeans()
    here.add({"a": 1.0, "b": math.nan})
    here.add({"a": 2.0})
    there.add({"a": 6.0, "c": 4.0})
    means = here.take(lambda own: [own, (there._sums, there._counts)])
    assert means["a"] == 3.0 and math.isnan(means["b"]) and means["c"] == 4.0
    assert here.take() == {}


def test_taking_starts_anew():
    means = EpochMeans()
    means.add({"a": 1.0})
    means.take()
    assert means.take() == {}
    means.add({"a": 3.0})
    assert means.take() == {"a": 3.0}


def test_the_log_has_a_row_an_epoch_and_a_column_a_name_in_order_of_appearance(tmp_path):
    write_log(tmp_path, HISTORY)
    text = (tmp_path / LOG_FILE).read_text(encoding="utf-8").splitlines()
    assert text == [
        "epoch,loss/supervised,weight/consistency,pseudo_dice/teacher",
        "0,0.5,0.25,",
        "1,0.375,0.5,nan",
    ]


def test_numbers_come_back_exactly(tmp_path):
    value = 0.1 + 0.2
    write_log(tmp_path, [{"epoch": 3, "loss/x": value}])
    assert float(read(tmp_path)[0]["loss/x"]) == value


def test_a_later_log_replaces_the_earlier_one_and_leaves_nothing_else(tmp_path):
    write_log(tmp_path, HISTORY[:1])
    write_log(tmp_path, HISTORY)
    assert [row["epoch"] for row in read(tmp_path)] == ["0", "1"]
    assert [path.name for path in tmp_path.iterdir()] == [LOG_FILE]


def test_the_picture_has_a_panel_for_each_kind_of_curve_there_is(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: figures.append(self) or path.touch())
    plot_log(tmp_path, HISTORY)
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert [title.split()[0] for title in titles] == ["loss", "weight", "pseudo"]
    (line,) = figures[0].axes[0].lines
    assert line.get_label() == "supervised"
    assert list(line.get_xdata()) == [0, 1] and list(line.get_ydata()) == [0.5, 0.375]
    (line,) = figures[0].axes[2].lines
    assert all(math.isnan(value) for value in line.get_ydata())


def test_the_picture_is_a_png(tmp_path):
    plot_log(tmp_path, HISTORY)
    assert (tmp_path / PLOT_FILE).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == [PLOT_FILE]


def test_logs_of_an_earlier_run_are_removed_and_nothing_else(tmp_path):
    write_log(tmp_path, HISTORY)
    plot_log(tmp_path, HISTORY)
    (tmp_path / "training_log.txt").touch()
    remove_logs(tmp_path)
    remove_logs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training_log.txt"]
