"""Tables and label-efficiency curves of a benchmark.

    python scripts/plot_benchmark.py scripts/benchmarks/exemplar.yaml --work DIR [--measured FILE]

DIR/results.csv is what scripts/benchmark.py has measured so far; with --measured it is made from FILE, such as
docs/measured/exemplar.jsonl, so that tables need no training. Writes DIR/table.md (Dice, surface Dice and HD95,
before and after post-processing; the claims of CONFIG, paired per scan and bootstrapped over scans and seeds; time and
memory) and DIR/dice.png (Dice over drawn planes, a line for each trainer with the band of its seeds, full supervision
as a broken line), and DIR/rows.png (Dice of every training, a row for each trainer, a shape for each seed).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from benchmark_grid import ALL_DENSE, Grid
from benchmark_measured import read_measured, write_csv
from benchmark_scores import POSTPROCESSED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_gmabs.demo.stock import BASES
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.scores import Score, paired_differences, read_scores
from nnunet_gmabs.report.statistics import paired_bootstrap
from nnunet_gmabs.report.tables import markdown_table

matplotlib.use("Agg")
COLOURS = 10  # of matplotlib's cycle
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
CONTROL = "stock nnU-Net, no mirroring"
LOOKS = {"dice": {"color": "C0"}, "dice" + POSTPROCESSED: {"color": "C1", "mfc": "none"}}
CONTROL_LOOK = {"color": "0.45", "linestyle": ":", "linewidth": 1}
LABELS = {"dice": "Dice", "dice" + POSTPROCESSED: "after post-processing"}
Means = dict[tuple[str, str], dict[int, float]]  # (row, labels) -> seed -> mean over scans of the classes' means


def read(path: Path) -> list[dict[str, str]]:
    """All lines of results.csv."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; scripts/benchmark.py makes it")
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def means(lines: list[dict[str, str]], column: str) -> Means:
    """Mean of a column over classes, then over scans, for each training; values that are no number are left out."""
    values: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        values[line["row"], line["labels"], int(line["seed"])][line["scan"]].append(float(line[column] or "nan"))
    result: Means = defaultdict(dict)
    for (row, labels, seed), by_scan in values.items():
        of_scans = [np.nanmean(v) for v in by_scan.values() if not np.isnan(v).all()]
        if of_scans:
            result[row, labels][seed] = float(np.mean(of_scans))
    return result


def tables_of_results(grid: Grid, lines: list[dict[str, str]], results: Path) -> list[str]:
    """Shares of the goal, scores of each kind of labels, claims over stock nnU-Net and between trainers of ours.

    results is the file of the lines.
    """
    measured = {line["labels"] for line in lines}
    kinds = filter(measured.__contains__, (*grid.labels, ALL_DENSE))
    over_stock = [claim for claim in grid.claims if grid.rows[claim[1]].trainer in BASES]
    between = [claim for claim in grid.claims if claim not in over_stock]
    titled = {
        "Dice, and its share of full supervision": goal_table(grid, lines),
        **{kind: score_table(grid, lines, kind) for kind in kinds},
        "Claims over stock nnU-Net": claim_table(grid, over_stock, results),
        "Claims between trainers of ours": claim_table(grid, between, results),
    }
    return [f"**{title}**\n\n{table}" for title, table in titled.items() if table]


def goal_table(grid: Grid, lines: list[dict[str, str]]) -> str:
    """Dice of each row and its share of the control's with all scans dense, by seed; "" where that was not measured.

    The mean runs over seeds that both have; seeds are named where they are not all of the grid's.
    """
    control = grid.rows.get(CONTROL)
    if control is None:
        return ""
    dice = means(lines, "dice")
    dense = [name for name, row in grid.rows.items() if row.labels == "dense" and row.trainer == control.trainer]
    goal = dice.get((dense[0], ALL_DENSE), {}) if dense else {}
    kinds = [labels for labels in grid.labels if any(measured == labels for _, measured in dice)]
    rows = []
    for row in (row for row in grid.rows if grid.rows[row].labels != "dense"):
        cells = []
        for labels in kinds:
            found = dice.get((row, labels), {})
            seeds = sorted(found.keys() & goal.keys())
            of = "" if seeds == grid.seeds else f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
            share = np.mean([found[seed] / goal[seed] for seed in seeds]) if seeds else 0
            value = np.mean([found[seed] for seed in seeds]) if seeds else 0
            cells.append(f"{100 * value:.1f} ({100 * share:.1f} %{of})" if seeds else "")
        if any(cells):
            rows.append([row, *cells])
    return markdown_table(["trainer", *kinds], rows) if rows else ""


def score_table(grid: Grid, lines: list[dict[str, str]], labels: str) -> str:
    """The trainings on one kind of labels: means over seeds, and each seed's Dice; surfaces before / after."""

    def seeds(row: str, column: str) -> dict[int, float]:
        factor = 1 if column.startswith("hd95") else 100
        return {seed: factor * value for seed, value in sorted(tables[column].get((row, labels), {}).items())}

    names = ("dice", "nsd", "hd95_mm")
    tables = {column: means(lines, column) for name in names for column in (name, name + POSTPROCESSED)}
    measured = sorted({seed for (_, kind), values in tables["dice"].items() if kind == labels for seed in values})
    rows = []
    for row in grid.rows:
        dice, *surfaces = [[seeds(row, name), seeds(row, name + POSTPROCESSED)] for name in names]
        if dice[0]:
            both = [" / ".join(f"{np.mean([*v.values()]):.1f}" for v in pair if v) for pair in surfaces]
            rows.append([row, *(mean_and_seeds(values, measured) for values in dice), *both])
    surface_dice = f"surface Dice at {grid.nsd_tolerance_mm} mm (%)"
    return markdown_table(["trainer", "Dice (%)", "after post-processing", surface_dice, "HD95 (mm)"], rows)


def mean_and_seeds(values: dict[int, float], seeds: list[int]) -> str:
    """The mean, and in brackets each seed's value where there are several seeds; a dash for one that is missing."""
    if not values:
        return ""
    each = ", ".join(f"{values[seed]:.1f}" if seed in values else "-" for seed in seeds)
    return f"{np.mean([*values.values()]):.1f}" + (f" ({each})" if len(seeds) > 1 else "")


def claim_table(grid: Grid, claims: list[list[str]], results: Path) -> str:
    """Claims, for each kind of labels that both rows have, before and after post-processing; "" if there is none."""
    before, after = (read_scores(results, column) for column in ("dice", "dice" + POSTPROCESSED))
    lines = []
    for labels in grid.labels:
        for better, worse in claims:
            pair = [f"{row}, {labels}" for row in (better, worse)]
            shape, *first = difference(before, *pair)
            if shape:
                lines.append([f"{better} - {worse}", labels, shape, *first, *difference(after, *pair)[1:]])
    columns = ["Dice points, 90 % interval", "counts", "after post-processing", "counts"]
    return markdown_table(["claim", "labels", "seeds x scans", *columns], lines) if lines else ""


def difference(scores: list[Score], better: str, worse: str) -> tuple[str, str, str]:
    """Seeds x scans, the difference and its interval, whether it counts; empty where the cells share no seed."""
    seeds_of_better, seeds_of_worse = ({s.seed for s in scores if s.cell == cell} for cell in (better, worse))
    if not seeds_of_better & seeds_of_worse:
        return "", "", ""
    differences, seeds, scans = paired_differences(scores, better, worse)
    if not differences.size:
        return "", "", ""
    interval = paired_bootstrap(100 * differences)
    numbers = f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
    return f"{len(seeds)} x {len(scans)}", numbers, interval.verdict


def cost_table(grid: Grid, lines: list[dict[str, str]]) -> str:
    """Medians over the trainings of a row."""
    values: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    columns = ("seconds", "step_seconds", "peak_mib", "scans_used", "planes_used")
    for line in lines:
        values[line["row"]].add(tuple(float(line[column]) for column in columns))
    rows = []
    for row in filter(values.get, grid.rows):
        seconds, step, peak, scans, planes = np.median(np.array(sorted(values[row])), axis=0)
        rows.append([row, f"{seconds / 60:.1f}", f"{step:.2f}", f"{peak:.0f}", f"{scans:.0f}", f"{planes:.0f}"])
    return markdown_table(["trainer", "minutes", "s a step", "peak MiB", "scans drawn", "planes drawn"], rows)


def plot(grid: Grid, lines: list[dict[str, str]], path: Path) -> None:
    """Dice over drawn planes."""
    save(dice_figure(grid, lines), path)


def plot_rows(grid: Grid, lines: list[dict[str, str]], path: Path) -> None:
    """Dice of every training."""
    save(rows_figure(grid, lines), path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and forget the figure."""
    figure.savefig(path, dpi=150)
    plt.close(figure)


def dice_figure(grid: Grid, lines: list[dict[str, str]]) -> Figure:
    """Dice over drawn planes, all rows of a grid."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    draw_curves(axes, grid, lines, {row: row for row in grid.rows})
    axes.set_title(f"{grid.dataset}, {grid.iterations} iterations", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def curves_side_by_side(panels: dict[str, tuple[Grid, list[dict[str, str]]]], rows: dict[str, str]) -> Figure:
    """Dice over drawn planes, a panel with a legend of its own for each grid, of which all have some rows in common.

    Args:
        panels: title -> a grid and the lines of its results.csv.
        rows: those to draw, and what to call them.
    """
    size = (5.5 * len(panels), 5.2)
    figure, places = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, (grid, lines)) in zip(places[0], panels.items(), strict=True):
        draw_curves(axes, grid, lines, rows)
        axes.set_title(f"{title}, {grid.iterations} iterations", fontsize=10)
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


def draw_curves(axes: Axes, grid: Grid, lines: list[dict[str, str]], rows: dict[str, str]) -> None:
    """Dice over drawn planes: a curve for each row, a broken line without marks for one with all scans dense.

    The band is that of seeds. What lies far below all others is not drawn, since it would squeeze the rest; its figures
    stand in the legend.

    Args:
        axes: to draw on.
        grid: the benchmark's.
        lines: of its results.csv.
        rows: those to draw, and what to call them.
    """
    dice = {cell: seeds for cell, seeds in means(lines, "dice").items() if cell[0] in rows}
    lowest, highest = common_range([100 * value for seeds in dice.values() for value in seeds.values()])
    margin = 0.06 * max(highest - lowest, 1)
    planes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for line in lines:
        planes[line["row"], line["labels"]].add(int(line["planes_used"]))
    for number, (row, name) in enumerate(rows.items()):
        again = number // COLOURS
        look = {"color": f"C{number % COLOURS}", "label": name}
        if (row, ALL_DENSE) in dice:
            level = 100 * np.mean(list(dice[row, ALL_DENSE].values()))
            look_dense = look | {"label": f"{name}: {level:.1f}", "linestyle": (0, (6 - again, 2 + again))}
            axes.axhline(level, linewidth=1.2, **look_dense)
        seeds = [100 * np.array(list(dice[row, labels].values())) for labels in grid.labels if (row, labels) in dice]
        at = [np.mean(list(planes[row, labels])) for labels in grid.labels if (row, labels) in dice]
        if not seeds:
            continue
        order = np.argsort(at)
        x, y = np.array(at)[order], [seeds[i] for i in order]
        marker, style = SHAPES[again % len(SHAPES)], ("-", ":", "-.")[again % 3]
        if any(v.min() < lowest for v in y):
            look["label"] += f": {', '.join(f'{v.mean():.1f}' for v in y)}"
        axes.plot(x, [v.mean() for v in y], marker=marker, markersize=4, linestyle=style, **look)
        low, high = [v.min() for v in y], [v.max() for v in y]
        axes.fill_between(x, low, high, alpha=0.15, color=look["color"], linewidth=0)
        axes.vlines(x, low, high, color=look["color"], alpha=0.5, linewidth=1)
    axes.set(xlabel="planes that an expert drew", ylabel="Dice on test scans (%)")
    axes.set_ylim(lowest - margin, highest + margin)
    axes.grid(alpha=0.3)


def rows_figure(grid: Grid, lines: list[dict[str, str]]) -> Figure:
    """Dice of every training, before and after post-processing: a shape for each seed, the same axis for all labels.

    Lines go down from the control's marks, one a seed, so that each training is compared with the same seed. Values far
    below all others stand in figures at the left edge, since they would squeeze the rest.
    """
    tables = {column: means(lines, column) for column in LOOKS}
    before = tables["dice"]
    rows = [row for row in grid.rows if any(row == measured for measured, _ in before)]
    kinds = [labels for labels in (*grid.labels, ALL_DENSE) if any(labels == measured for _, measured in before)]
    shapes = {seed: SHAPES[i % len(SHAPES)] for i, seed in enumerate(sorted({s for v in before.values() for s in v}))}
    values = [100 * v for table in tables.values() for seeds in table.values() for v in seeds.values()]
    low, high = common_range(values)
    margin = 0.04 * max(high - low, 1)
    said = "Dice on test scans (%)" + ("; figures behind an arrow: further left" if min(values) < low else "")
    size = (2 + 3.6 * len(kinds), 1.6 + 0.3 * len(rows))
    figure, panels = plt.subplots(1, len(kinds), figsize=size, sharex=True, sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
    for axes, labels in zip(panels[0], kinds, strict=True):
        for value in before.get((CONTROL, labels), {}).values():
            axes.vlines(100 * value, rows.index(CONTROL) - 0.15, len(rows), **CONTROL_LOOK)
        for y, row in enumerate(rows):
            if (row, labels) not in before:
                write_at_left(
                    axes, y, "not trained" if grid.rows[row].is_of(labels) else "not for these labels", "0.55"
                )
            for (column, table), shift in zip(tables.items(), (-0.15, 0.2), strict=True):
                seeds = {seed: 100 * value for seed, value in sorted(table.get((row, labels), {}).items())}
                draw_seeds(axes, y + shift, seeds, low, shapes, LOOKS[column])
            axes.axhline(y + 0.5, color="0.9", linewidth=0.8)
        axes.set_title(labels, fontsize=9)
        axes.set_xlabel(said, fontsize=8)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(low - margin, high + margin))
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(alpha=0.3, axis="x")
    figure.suptitle(f"{grid.dataset}, {grid.iterations} iterations", fontsize=10)
    handles = [Line2D([], [], marker="o", ms=4.5, lw=0, label=LABELS[column], **look) for column, look in LOOKS.items()]
    for seed, shape in shapes.items():
        handles.append(Line2D([], [], marker=shape, color="0.3", ms=4.5, lw=0, label=f"seed {seed}"))
    if CONTROL in rows:
        handles.append(Line2D([], [], label=f"{CONTROL}, each seed", **CONTROL_LOOK))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def draw_seeds(
    axes: Axes, y: float, seeds: dict[int, float], low: float, shapes: dict[int, str], look: dict[str, str]
) -> None:
    """A mark for each seed; figures at the left edge for all of them where one lies further left."""
    if any(value < low for value in seeds.values()):
        write_at_left(axes, y, "\N{LEFTWARDS ARROW} " + ", ".join(f"{v:.1f}" for v in seeds.values()), look["color"])
        return
    for seed, value in seeds.items():
        axes.plot(value, y, shapes[seed], ms=4.5, **look)


def write_at_left(axes: Axes, y: float, words: str, colour: str) -> None:
    """Small words in a row."""
    axes.text(0.015, y, words, transform=axes.get_yaxis_transform(), color=colour, fontsize=7, va="center")


def common_range(values: list[float]) -> tuple[float, float]:
    """The lowest and the highest value that are drawn; no value counts that lies far below the middle half.

    Far is 1.5 times the width of the middle half (Tukey), and at least 5 points.

    >>> common_range([30.0, 76.0, 78.0, 79.0, 80.0, 81.0])
    (76.0, 81.0)
    """
    first, third = np.percentile(values, [25, 75])
    return min(value for value in values if value >= first - max(1.5 * (third - first), 5)), max(values)


def main() -> int:
    """Write all files and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--measured", type=Path, metavar="FILE", help="make results.csv from it first")
    args = parser.parse_args()
    try:
        grid = Grid.read(args.config)
        if args.measured:
            args.work.mkdir(parents=True, exist_ok=True)
            write_csv(args.work / "results.csv", grid.todays(read_measured(args.measured)), grid.dataset)
        lines = read(args.work / "results.csv")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    judged = f"{grid.judge_unlabelled} unlabelled training scans" if grid.judge_unlabelled else "test scans"
    tables = tables_of_results(grid, lines, args.work / "results.csv")
    text = "\n\n".join([f"{judged}, {grid.iterations} iterations", *tables, cost_table(grid, lines)]) + "\n"
    (args.work / "table.md").write_text(text, encoding="utf-8")
    plot(grid, lines, args.work / "dice.png")
    plot_rows(grid, lines, args.work / "rows.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
