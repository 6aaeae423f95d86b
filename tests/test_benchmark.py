"""The benchmark's grid: its file, its cells, its tables, and one cell with real commands."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk
import yaml

from nnunet_gmabs.demo.stock import BASES
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.nnunet_ext import gmabs_trainers
from nnunet_gmabs.settings import override

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
GRID = {
    "dataset": "Dataset004_Dense",
    "iterations": 2,
    "seeds": [0, 1],
    "test_scans": 1,
    "plans": {"cpu_seconds": 0.02, "batch_size": 2},
    "settings": {"consistency": {"weight": 0.3, "confidence": 0.7}},
    "labels": {"2 scans": {"scans": 2}, "1 dense scan": {"scans": 1, "planes": "all", "seeds": [0]}},
    "rows": {
        "stock": {"trainer": "stock"},
        "ours": {"trainer": "nnUNetTrainerSparse", "settings": {"consistency": {"weight": 0.1}}},
        "all": {"trainer": "stock", "labels": "dense", "seeds": [1]},
    },
    "claims": [["ours", "stock"]],
}


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(SCRIPTS))
    import benchmark
    import plot_benchmark

    yield benchmark, plot_benchmark
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID, sort_keys=False))
    return path


@pytest.fixture
def dense(tmp_path):
    folder = tmp_path / "data" / "Dataset004_Dense"
    raw_data.write_dataset_json(folder, raw_data.LABELS, scans=6)
    for number in range(6):
        raw_data.write_scan(folder, number)
        raw_data.write_labels(folder, number, planes=None)
    return folder


@pytest.fixture
def bench(scripts, config, dense, tmp_path):
    arguments = type("Arguments", (), {"data": dense.parent, "work": tmp_path / "work", "device": "cpu", "threads": 1})
    arguments.measured, arguments.bfloat16 = tmp_path / "measured.jsonl", False
    return scripts[0].Benchmark(scripts[0].Grid.read(config), arguments)


def write_cell(bench, cell, dice, **more):
    """A result as run() writes it, with made scores of two scans."""
    names = ("dice", "hd95_mm", "nsd")
    scores = {key: {scan: {1: v, 2: v} for scan, v in dice.items()} for key in names}
    scores |= {f"{key}_postprocessed": {scan: {1: v * v, 2: v * v} for scan, v in dice.items()} for key in names}
    row = bench.grid.rows[cell.row]
    result = {
        **{"row": cell.row, "labels": cell.labels, "seed": cell.seed, "trainer": row.trainer, "strategy": ""},
        **{"settings": bench.grid.settings_of(cell), "iterations": 2},
        **{
            "data": bench.grid.data(cell.labels),
            "scans_used": 2,
            "planes_used": 6,
            "seconds": 60,
            "step_seconds": 0.5,
            "peak_mib": 900,
        },
        **{"versions": {"nnunetv2": "2"}, "scores": scores, **more},
    }
    bench.result_file(cell).write_text(json.dumps(result))


def test_cells_are_rows_by_labels_by_seeds(scripts, config):
    cells = [(c.row, c.labels, c.seed) for c in scripts[0].Grid.read(config).cells()]
    some = [(row, "2 scans", seed) for seed in (0, 1) for row in ("stock", "ours")]
    assert cells == [*some, ("stock", "1 dense scan", 0), ("ours", "1 dense scan", 0), ("all", "all scans, dense", 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iteration": 3}, "iteration"),
        ({"rows": {"a": {"trainer": "stock", "labels": ["3 scans"]}}, "claims": []}, "3 scans"),
        ({"rows": {"a": {"settings": {}}}, "claims": []}, "trainer"),
        ({"claims": [["ours", "theirs"]]}, "theirs"),
        ({"seeds": [9, 10]}, "seeds: 10: must be within 0 to 9"),
    ],
)
def test_a_bad_file_is_refused_by_name(scripts, config, change, message):
    config.write_text(yaml.safe_dump(GRID | change))
    with pytest.raises(InputError, match=message):
        scripts[0].Grid.read(config)


def test_settings_of_a_row_win_over_those_of_its_labels_and_these_over_the_grids(scripts, bench):
    bench.grid.labels["2 scans"].settings["consistency"] = {"weight": 0.2, "ramp_start": 0.5, "confidence": 0.6}
    settings = bench.grid.settings_of(scripts[0].Cell("ours", "2 scans", 1))
    assert settings["consistency"] == {"weight": 0.1, "ramp_start": 0.5, "confidence": 0.6}


def test_settings_of_a_row_win_over_those_of_the_grid(scripts, bench):
    settings = bench.grid.settings_of(scripts[0].Cell("ours", "2 scans", 1))
    assert settings["consistency"] == {"weight": 0.1, "confidence": 0.7}
    assert (settings["seed"], settings["num_epochs"], settings["num_iterations_per_epoch"]) == (1, 1, 2)
    assert bench.grid.settings["consistency"]["weight"] == 0.3


def test_a_measured_cell_is_not_measured_again_and_not_mistaken(scripts, bench, config):
    cell = scripts[0].Cell("ours", "2 scans", 0)
    assert not bench.is_done(cell)
    write_cell(bench, cell, {"a": 0.5})
    assert bench.is_done(cell)
    bench.grid.rows["ours"].settings["consistency"]["weight"] = 0.2
    with pytest.raises(InputError, match="other settings"):
        bench.is_done(cell)


def test_precision_is_the_machines_and_no_reason_to_train_again(scripts, bench):
    ours, stock = (scripts[0].Cell(row, "2 scans", 0) for row in ("ours", "stock"))
    for cell in (ours, stock):
        write_cell(bench, cell, {"a": 0.5})
    assert "cpu_bfloat16" not in bench.grid.settings_of(ours)
    result = json.loads(bench.result_file(ours).read_text())
    result["settings"]["cpu_bfloat16"] = True
    bench.result_file(ours).write_text(json.dumps(result))
    assert bench.is_done(ours) and bench.is_done(stock)
    bench.grid.settings["consistency"]["confidence"] = 0.71
    with pytest.raises(InputError, match="other settings"):
        bench.is_done(ours)


def test_a_cell_of_another_trainer_or_tolerance_is_not_taken_for_measured(scripts, bench):
    cells = [scripts[0].Cell(row, "2 scans", 0) for row in ("stock", "ours")]
    for cell in cells:
        write_cell(bench, cell, {"a": 0.5})
    bench.grid.rows["stock"] = replace(bench.grid.rows["stock"], trainer="stock, no mirroring")
    bench.grid.rows["ours"] = replace(bench.grid.rows["ours"], trainer="nnUNetTrainerMeanTeacher")
    for cell in cells:
        with pytest.raises(InputError, match="other settings"):
            bench.is_done(cell)
    write_cell(bench, cells[1], {"a": 0.5})
    assert bench.is_done(cells[1])
    object.__setattr__(bench.grid, "nsd_tolerance_mm", 5.0)
    with pytest.raises(InputError, match="other settings"):
        bench.is_done(cells[1])


def test_the_file_of_measured_cells_loses_nothing(scripts, bench):
    for seed in (0, 1):
        write_cell(bench, scripts[0].Cell("stock", "2 scans", seed), {"a": 0.5})
    bench.write_results()
    for path in (bench.work / "cells").iterdir():
        path.unlink()
    bench.grid.settings["consistency"]["weight"] = 0.4  # another grid, another folder
    object.__setattr__(bench.grid, "test_scans", 2)
    write_cell(bench, scripts[0].Cell("stock", "2 scans", 1), {"a": 0.75})
    write_cell(bench, scripts[0].Cell("ours", "2 scans", 0), {"a": 0.25})
    bench.write_results()
    lines = [json.loads(line) for line in bench.measured.read_text().splitlines()]
    found = [(line["row"], line["seed"], line["scores"]["dice"]["1"], line["data"]["test_scans"]) for line in lines]
    assert found == [("ours", 0, [0.25], 2), ("stock", 0, [0.5], 1), ("stock", 1, [0.75], 2)]
    assert len(read_table(bench)) == 4  # the cells of today's grid alone, two classes each


def read_table(bench):
    """results.csv, its scores with as many digits as the file of measured cells has."""
    with open(bench.work / "results.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    return [
        {k: f"{float(v):.4f}" if "dice" in k or k[:3] in ("hd9", "nsd") else v for k, v in x.items()} for x in lines
    ]


def test_measured_cells_go_from_machine_to_machine_and_are_not_trained_again(scripts, bench, config):
    here, there = (scripts[0].Cell(row, "2 scans", 0) for row in ("ours", "stock"))
    write_cell(bench, here, {"a": 0.123456789, "b": float("nan")})
    write_cell(bench, there, {"a": 0.5, "b": 0.25})
    bench.write_results()
    lines = bench.measured.read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == ["ours", "stock"]
    assert json.loads(lines[0])["scores"]["dice"] == {"1": [0.1235, None], "2": [0.1235, None]}
    table = read_table(bench)
    for path in (bench.work / "cells").iterdir():
        path.unlink()
    bench.take_over()
    bench.write_results()
    assert bench.is_done(here) and bench.is_done(there)
    assert read_table(bench) == table
    assert bench.measured.read_text().splitlines() == lines
    bench.result_file(there).unlink()
    bench.grid.labels["2 scans"] = scripts[0].Grid.read(config).labels["1 dense scan"]  # other data, same name
    bench.take_over()
    assert not bench.is_done(there)
    with pytest.raises(InputError, match="other settings"):
        bench.is_done(here)
    bench.measured.write_text(lines[1] + "\n{}\n")
    with pytest.raises(InputError, match=r"measured.jsonl, line 2: .*remove this line"):
        bench.take_over()


def test_tables_need_no_training_where_cells_are_measured(scripts, bench, config, tmp_path, capsys, monkeypatch):
    write_cell(bench, scripts[0].Cell("ours", "2 scans", 0), {"a": 0.5, "b": 0.7})
    bench.write_results()
    command = ["plot_benchmark.py", str(config), "--work", str(tmp_path / "new"), "--measured", str(bench.measured)]
    monkeypatch.setattr(sys, "argv", command)
    assert scripts[1].main() == 0
    assert "| ours | 60.0 | 37.0 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command[:-1], str(tmp_path / "none.jsonl")])
    assert scripts[1].main() == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err


def test_tables_and_picture_of_made_results(scripts, bench, config, capsys, monkeypatch):
    benchmark, plot = scripts
    for seed in (0, 1):
        write_cell(bench, benchmark.Cell("stock", "2 scans", seed), {"a": 0.5, "b": 0.6})
        write_cell(bench, benchmark.Cell("ours", "2 scans", seed), {"a": 0.6, "b": 0.7 + 0.1 * seed})
    write_cell(bench, benchmark.Cell("all", "all scans, dense", 1), {"a": 0.9, "b": 0.9})
    bench.write_results()
    monkeypatch.setattr(sys, "argv", ["plot_benchmark.py", str(config), "--work", str(bench.work)])
    assert plot.main() == 0
    text = capsys.readouterr().out
    ours = "| ours | 67.5 (65.0, 70.0) | 46.2 (42.5, 50.0) | 67.5 / 46.2 | 0.7 / 0.5 |"  # NSD and HD95 are made of Dice
    assert ours in text.split("**2 scans**")[1].split("**all scans, dense**")[0]
    assert text.split("**all scans, dense**")[1].split("\n\n")[1].splitlines()[2:] == [
        "| all | 90.0 | 81.0 | 90.0 / 81.0 | 0.9 / 0.8 |"
    ]
    claim = (
        "| ours - stock | 2 scans | 2 x 2 | +12.5 (+10.0 to +20.0) | few scans | +15.7 (+11.0 to +28.0) | few scans |"
    )
    assert claim in text
    assert all((bench.work / f"{name}.png").stat().st_size > 10_000 for name in ("dice", "rows"))
    assert (bench.work / "table.md").read_text() in text
    for seed in (0, 1):  # of an older version of the script, its predictions gone
        path = bench.result_file(benchmark.Cell("stock", "2 scans", seed))
        result = json.loads(path.read_text())
        result["scores"] = {k: v for k, v in result["scores"].items() if not k.endswith("_postprocessed")}
        path.write_text(json.dumps(result))
    bench.write_results()
    assert plot.main() == 0
    assert "| 2 x 2 | +12.5 (+10.0 to +20.0) | few scans |  |  |" in capsys.readouterr().out


def test_a_claim_of_rows_that_share_no_seed_is_not_made(scripts, bench, config, capsys, monkeypatch):
    benchmark, plot = scripts
    for row, seed in (("stock", 0), ("ours", 1)):
        write_cell(bench, benchmark.Cell(row, "2 scans", seed), {"a": 0.5, "b": 0.6})
    bench.write_results()
    monkeypatch.setattr(sys, "argv", ["plot_benchmark.py", str(config), "--work", str(bench.work)])
    assert plot.main() == 0
    text = capsys.readouterr().out
    assert "| ours | 55.0 |" in text.replace("(-, 55.0)", "").replace("  ", " ") and "ours - stock" not in text


def test_shares_of_full_supervision_are_paired_by_seed(scripts):
    plot, grid = scripts[1], scripts[1].Grid.read(SCRIPTS / "benchmarks" / "label_efficiency.yaml")
    goal = "stock nnU-Net, no mirroring, all dense"
    made = {goal: 0.8, "stock nnU-Net, all dense": 0.4, "Sparse": 0.4}
    lines = made_up(grid, lambda row, seed: made.get(row, 0.6) + 0.1 * seed)
    lines = [line for line in lines if (line["row"], line["seed"]) != ("CMEMS", "2")]
    header, _, *rows = plot.goal_table(grid, lines).splitlines()
    assert header.startswith("| trainer | 4 scans x 3 planes | 8 scans")
    # 4/8, 5/9, 6/10
    assert "| Sparse | 50.0 (55.2 %) | 40.0 (50.0 %, seed 0) | 50.0 (55.2 %) |  |" in rows
    assert "| CMEMS | 65.0 (76.4 %, seeds 0, 1) | 60.0 (75.0 %, seed 0) | 65.0 (76.4 %, seeds 0, 1) |  |" in rows
    assert not any("dense" in row for row in rows)
    assert plot.goal_table(grid, [line for line in lines if line["row"] != goal]) == ""


def made_up(grid, of=lambda row, seed: 0.8):
    """Lines of results for every cell of a grid, two scans each."""
    lines = []
    for cell in grid.cells():
        value = str(of(cell.row, cell.seed))
        line = {"row": cell.row, "labels": cell.labels, "seed": str(cell.seed), "planes_used": "9"}
        lines += [line | {"scan": scan, "dice": value, "dice_postprocessed": value} for scan in "ab"]
    return lines


@pytest.mark.parametrize("name", ["label_efficiency", "atrium_exemplar"])
def test_no_two_rows_look_alike_in_the_picture_over_planes(scripts, name):
    grid = scripts[1].Grid.read(SCRIPTS / "benchmarks" / f"{name}.yaml")
    drawn = scripts[1].dice_figure(grid, made_up(grid)).axes[0].lines
    looks = {
        (line.get_color(), str(line.get_linestyle()), str(line._dash_pattern), line.get_marker()) for line in drawn
    }
    assert len(looks) == len(drawn) >= len(grid.rows)


def test_what_is_far_below_does_not_squeeze_the_picture_over_planes_and_stands_in_its_legend(scripts):
    plot, grid = scripts[1], scripts[1].Grid.read(SCRIPTS / "benchmarks" / "label_efficiency.yaml")
    low = "stock nnU-Net, ignore label"
    [axes] = plot.dice_figure(grid, made_up(grid, lambda row, seed: 0.3 if row == low else 0.8)).axes
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.get_ylim()[0] > 75 and said[0] == f"{low}: 30.0, 30.0, 30.0" and "Sparse" in said


def test_the_same_row_has_the_same_name_and_colour_in_panels_side_by_side(scripts):
    plot, names = scripts[1], ("label_efficiency", "atrium_label_efficiency")
    grids = [plot.Grid.read(SCRIPTS / "benchmarks" / f"{name}.yaml") for name in names]
    one, two = (made_up(grid) for grid in grids)
    two = [line for line in two if line["row"] != "Sparse"]
    rows = {"Sparse": "ours", "MeanTeacher": "teacher", "stock nnU-Net, all dense": "goal"}
    figure = plot.curves_side_by_side({"left": (grids[0], one), "right": (grids[1], two)}, rows)
    looks = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figure.axes]
    assert [axes.get_title() for axes in figure.axes] == ["left, 600 iterations", "right, 600 iterations"]
    assert set(looks[0]) == {"ours", "teacher", "goal: 80.0"}
    assert looks[1] == {name: colour for name, colour in looks[0].items() if name != "ours"}


def test_the_picture_of_rows_tells_seeds_apart_and_what_was_not_trained(scripts):
    plot, grid = scripts[1], scripts[1].Grid.read(SCRIPTS / "benchmarks" / "exemplar.yaml")
    low, control = "stock nnU-Net, ignore label", "stock nnU-Net, no mirroring"
    lines = made_up(grid, lambda row, seed: 0.3 if row == low else 0.76 + 0.01 * seed if row == control else 0.8)
    lines = [line for line in lines if (line["row"], line["labels"]) != ("CMEMS", "1 dense scan")]
    one, two = plot.rows_figure(grid, lines).axes
    assert one.get_xlim() == two.get_xlim() and one.get_xlim()[0] > 60, "what is far below does not squeeze the rest"
    names = [name for name in grid.rows if any(line["row"] == name for line in lines)]
    words = [[(text.get_text(), round(text.get_position()[1])) for text in axes.texts] for axes in (one, two)]
    assert ("not for these labels", names.index("CMEMS, no synthetic samples")) in words[1]
    assert ("not trained", names.index("CMEMS")) in words[0] and ("not trained", names.index("CMEMS")) not in words[1]
    assert ("\N{LEFTWARDS ARROW} 30.0, 30.0, 30.0", names.index(low)) in words[0]
    marks = [
        line.get_marker()
        for line in two.lines
        if line.get_color() == "C0" and round(line.get_ydata()[0]) == names.index(control)
    ]
    assert len(set(marks)) == len(grid.seeds) == 3
    at = [segment[0][0] for lines in one.collections for segment in lines.get_segments()]
    assert at == pytest.approx([76, 77, 78]), "a line for each seed of the control"
    said = [text.get_text() for text in one.figure.legends[0].get_texts()]
    assert said == ["Dice", "after post-processing", "seed 0", "seed 1", "seed 2", f"{control}, each seed"]


def test_only_rows_of_dense_scans_are_for_all_scans_dense(scripts, config):
    rows = scripts[0].Grid.read(config).rows
    assert {name: row.is_of("all scans, dense") for name, row in rows.items()} == {
        "stock": False,
        "ours": False,
        "all": True,
    }
    assert rows["ours"].is_of("2 scans") and not rows["all"].is_of("2 scans")


def test_one_seed_is_no_mean_and_without_the_control_there_is_no_line(scripts):
    grid = scripts[1].Grid.read(SCRIPTS / "benchmarks" / "atrium_exemplar.yaml")
    lines = [line for line in made_up(grid) if not line["row"].startswith("stock")]
    figure = scripts[1].rows_figure(grid, lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Dice", "after post-processing", "seed 0"]
    assert not any(axes.collections for axes in figure.axes)
    assert {axes.get_xlabel() for axes in figure.axes} == {"Dice on test scans (%)"}


def test_the_drawn_planes_say_what_is_taken_off_predictions(scripts, tmp_path):
    import benchmark_scores

    raw, predictions = tmp_path / "raw", tmp_path / "predictions"
    raw_data.write_raw(raw, 3, (), raw_data.SPARSE_LABELS)
    for number in range(3):
        labels = np.zeros(raw_data.scan_shape(number), np.uint8)
        labels[2:6, 2:6, 2:6], labels[6:, :2, :], labels[6:, -2:, :] = 1, 2, 2
        raw_data.write_labels(raw, number, ((0, 4), (0, 7), (1, 4), (1, 0), (2, 3)), labels)
    name = f"{raw_data.name(0)}.nii.gz"
    truth = np.zeros(raw_data.scan_shape(0), np.uint8)
    truth[2:6, 2:6, 2:6], truth[8, 0, :4] = 1, 2
    predicted = truth.copy()
    predicted[-1, -1, -8:], predicted[-1, -1, 0] = 1, 2  # 64 voxels of class 1 and 8 too many; of class 2 one too many
    raw_data.write_image(raw / "labelsTs" / name, truth)
    raw_data.write_image(predictions / name, predicted)
    scores = benchmark_scores.postprocessed_scores(predictions, raw / "labelsTs", [1, 2], 1.0, raw)
    scan = raw_data.name(0)
    assert scores["dice_postprocessed"] == {scan: {1: 1.0, 2: pytest.approx(8 / 9)}}
    assert scores["hd95_mm_postprocessed"][scan][1] == 0 and scores["nsd_postprocessed"][scan]
    content = json.loads((raw / "dataset.json").read_text())  # now dense: the last class counts, too
    content["labels"].pop("ignore")
    (raw / "dataset.json").write_text(json.dumps(content))
    for number in range(3):
        labels = np.zeros(raw_data.scan_shape(number), np.uint8)
        labels[2:6, 2:6, 2:6] = 2
        raw_data.write_labels(raw, number, None, labels)
    dense = benchmark_scores.postprocessed_scores(predictions, raw / "labelsTs", [1, 2], 1.0, raw)
    assert dense["dice_postprocessed"][raw_data.name(0)][2] == 1.0


def test_the_script_compares_its_own_table(scripts, bench):
    for row, dice in (("stock", 0.5), ("ours", 0.6)):
        write_cell(bench, scripts[0].Cell(row, "2 scans", 0), {"a": dice, "b": dice})
    bench.write_results()
    command = [sys.executable, str(SCRIPTS / "compare.py"), str(bench.work / "results.csv")]
    done = subprocess.run([*command, "--reference", "stock, 2 scans"], capture_output=True, text=True, check=True)
    assert "ours, 2 scans - stock, 2 scans" in done.stdout and "+10.0" in done.stdout


def test_scans_for_choices_are_no_test_scans_and_not_labelled(scripts, bench):
    object.__setattr__(bench.grid, "judge_unlabelled", 4)  # one more than there are
    cell = scripts[0].Cell("stock", "2 scans", 0)
    raw = bench.work / "raw" / bench.data.name("2 scans", 0)
    for folder in ("gmabs", "imagesTr", "labelsTr_dense"):
        (raw / folder).mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    (raw / "gmabs" / "sparsify.json").write_text(json.dumps({"planes_kept": {"s0": [], "s1": []}}))
    for scan in ("s0", "s1", "s2", "s3", "s4"):
        (raw / "imagesTr" / f"{scan}_0000.nii.gz").write_text("")
        (raw / "labelsTr_dense" / f"{scan}.nii.gz").write_text("")
    images, truth = bench.data.judged(cell)
    names = {p.name.removesuffix(".nii.gz") for p in truth.iterdir()}
    assert names == {"s2", "s3", "s4"}
    assert {p.name for p in images.iterdir()} == {f"{name}_0000.nii.gz" for name in names}
    object.__setattr__(bench.grid, "judge_unlabelled", 2)
    assert len(list(bench.data.judged(cell)[1].iterdir())) == 2


def test_data_made_for_another_grid_are_not_trained_on(scripts, bench, monkeypatch):
    ran = []

    def command(name, program, *arguments, **variables):
        ran.append(arguments[0])
        folder = bench.work / ("raw" if arguments[0] == "sparsify" else "preprocessed") / "Dataset600_Dense"
        (folder / "gmabs").mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0}, "file_ending": ".nii.gz"}))
        (folder / "gmabs" / "sparsify.json").write_text(json.dumps({"planes_kept": {"s0": []}}))
        plans = {"configurations": {"3d_fullres": {}}}
        (folder / "nnUNetPlansCPU.json").write_text(json.dumps(plans))

    monkeypatch.setattr(bench.data, "command", command)
    bench.data.make("2 scans", 0)
    bench.data.make("2 scans", 0)
    assert ran == ["sparsify", "prepare"]
    (bench.work / "raw" / "Dataset600_Dense" / "benchmark.json").unlink()  # killed before the end
    bench.data.make("2 scans", 0)
    assert ran == ["sparsify", "prepare"] * 2
    object.__setattr__(bench.grid, "judge_unlabelled", 1)  # how it is judged, not what is trained on
    bench.data.make("2 scans", 0)
    bench.grid.plans["batch_size"] = 3
    with pytest.raises(InputError, match=r"Dataset600_Dense was made for plans .*2\}, wanted is .*3\}; remove it and"):
        bench.data.make("2 scans", 0)
    assert len(ran) == 4


@pytest.mark.slow
def test_one_cell_with_real_commands(scripts, config, dense, tmp_path):
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), str(config), "--data", str(dense.parent)]
    command += ["--work", str(tmp_path / "work"), "--rows", "ours", "--seeds", "0", "--jobs", "1"]
    config.write_text(yaml.safe_dump(GRID | {"labels": {"1 dense scan": {"scans": 1, "planes": "all"}}}))
    shutil.copytree(dense / "imagesTr", dense / "imagesTs")  # more test images, without truth, as in the Decathlon
    for path in (dense / "imagesTs").iterdir():
        path.rename(path.with_name(f"no_truth_{path.name}"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "work" / "results.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    assert len(lines) == 2 and {line["class"] for line in lines} == {"1", "2"}
    first = lines[0]
    shapes = {raw_data.scan_spacing(n).index(max(raw_data.scan_spacing(n))): raw_data.scan_shape(n) for n in range(6)}
    assert first["scans_used"] == "1" and int(first["planes_used"]) in {shape[axis] for axis, shape in shapes.items()}
    assert 0 <= float(first["dice"]) <= 1 and float(first["peak_mib"]) > 100 and float(first["step_seconds"]) > 0
    again = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert again.stdout.startswith("0 of ")


def write_log(folder, lines):
    folder.mkdir(parents=True)
    with open(folder / "gmabs_log.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, list(lines[-1]), restval="")
        writer.writeheader()
        writer.writerows(lines)


def test_rounds_are_drawn_from_the_log(scripts, tmp_path, capsys, monkeypatch):
    import plot_rounds

    keys = [f"round/true{who}_dice/class_{k}" for who in ("_teacher", "") for k in (1, 2)]
    rounds = [dict(zip(keys, values, strict=True)) for values in ((0.5, 0.6, 0.7, 0.8), (0.6, 0.7, 0.71, 0.65))]
    write_log(tmp_path / "a__p" / "fold_0", [{"epoch": 0}, {"epoch": 1, **rounds[0]}, {"epoch": 4, **rounds[1]}])
    command = ["plot_rounds.py", str(tmp_path / "a__p" / "fold_0"), "--to", str(tmp_path / "rounds.png")]
    monkeypatch.setattr(sys, "argv", command)
    assert plot_rounds.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| a | 2 | 1 | 50.0 | 70.0 | +20.0 |",
        "| a | 2 | 2 | 60.0 | 80.0 | +20.0 |",
        "| a | 5 | 1 | 60.0 | 71.0 | +11.0 |",
        "| a | 5 | 2 | 70.0 | 65.0 | -5.0 |",
    ]
    assert (tmp_path / "rounds.png").stat().st_size > 10_000
    write_log(tmp_path / "b__p" / "fold_0", [{"epoch": 0}])
    monkeypatch.setattr(sys, "argv", ["plot_rounds.py", str(tmp_path / "b__p" / "fold_0"), *command[2:]])
    assert plot_rounds.main() == 2
    assert "set relabel.truth" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((SCRIPTS / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_that_come_along_name_trainers_and_settings_that_exist(scripts, path):
    grid = scripts[0].Grid.read(path)
    for row in grid.rows.values():
        if row.trainer in BASES:
            continue
        trainer = getattr(gmabs_trainers, row.trainer)
        for settings in (grid.settings, row.settings, *(labels.settings for labels in grid.labels.values())):
            override(trainer.config, settings, str(path), [])


def test_a_coarser_grid_keeps_places_and_labels(scripts, tmp_path):
    from benchmark_data import resample

    labels = np.zeros((12, 16, 20), np.uint8)
    labels[4:8, 4:10, 6:14] = 2
    raw_data.write_image(tmp_path / "labels.nii.gz", labels, (1.0, 1.5, 1.0))
    raw_data.write_image(tmp_path / "image.nii.gz", 100.0 * (labels > 0), (1.0, 1.5, 1.0))
    for name, is_labels in (("labels", True), ("image", False)):
        resample(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_coarse.nii.gz", [2.0, 3.0, 2.0], is_labels)
    coarse = sitk.ReadImage(str(tmp_path / "labels_coarse.nii.gz"))
    array = sitk.GetArrayFromImage(coarse)
    assert array.shape == (6, 8, 10) and coarse.GetSpacing() == pytest.approx((2, 3, 2))
    assert set(np.unique(array)) == {0, 2} and array.sum() * 12 == pytest.approx(labels.sum() * 1.5, rel=0.01)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "image_coarse.nii.gz")))
    assert image[array == 2].mean() > 90 and image[array == 0].mean() < 10
    centres = []
    for path in ("labels", "labels_coarse"):
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.Execute(sitk.ReadImage(str(tmp_path / f"{path}.nii.gz")))
        centres.append(statistics.GetCentroid(2))
    assert centres[0] == pytest.approx(centres[1], abs=1e-3)
