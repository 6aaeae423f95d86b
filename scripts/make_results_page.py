"""Fill the tables of docs/results.md and of the README from the measured trainings that come along.

    python scripts/make_results_page.py

Between <!-- GRID --> and <!-- end of GRID --> in docs/results.md stand the claims and scores of
scripts/benchmarks/GRID.yaml as docs/measured/GRID.jsonl has them; docs/measured/GRID.png is drawn beside it. Between
<!-- planes --> and <!-- end of planes --> in the README stands what trainers gain over the control with planes, and
likewise with one dense scan; its picture is docs/measured/curves.png. That takes no training and no scans.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchmark_grid import ALL_DENSE, Grid
from benchmark_measured import read_measured, write_csv
from plot_benchmark import CONTROL, curves_side_by_side, difference, means, plot_rows, read, save, tables_of_results

from nnunet_gmabs.report.scores import Score, read_scores
from nnunet_gmabs.report.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "docs" / "measured"
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
BLOCK = re.compile(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
SHORT_TABLES = {  # block of the README -> column -> its grid and labels
    "planes": {
        "hippocampus, 4 scans": ("label_efficiency", "4 scans x 3 planes"),
        "hippocampus, 20 scans": ("label_efficiency", "20 scans x 3 planes"),
        "atrium, 4 scans": ("atrium_label_efficiency", "4 scans x 3 planes"),
        "atrium, 20 scans": ("atrium_label_efficiency", "20 scans x 3 planes"),
    },
    "dense": {
        "hippocampus, 1 dense scan": ("exemplar", "1 dense scan"),
        "atrium, 1 dense scan": ("atrium_exemplar", "1 dense scan"),
    },
}
SHORT_ROWS = {  # row of the grids -> as the README calls it
    "stock nnU-Net, ignore label": "nnU-Net's default, which mirrors",
    **{row: f"`{row}`" for row in ("Sparse", "MeanTeacher", "GMABS", "GMABSMutual", "CMEMS")},
    "CMEMS, no image term": "`CMEMSNoImage`",
    "Sparse, synthetic samples": "`SparseSynthetic`",
    f"{CONTROL}, all dense": "the control on all scans, drawn densely",
}
STYLES = {"yes": "**{}**", "one seed": "*{}*", "no": "{}", "": "not trained"}


@contextmanager
def results_of(name: str) -> Iterator[tuple[Grid, Path]]:
    """A grid and, while it is needed, the table of its measured trainings."""
    grid = Grid.read(ROOT / "scripts" / "benchmarks" / f"{name}.yaml")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.csv")
        write_csv(results, grid.todays(read_measured(MEASURED / f"{name}.jsonl")), grid.dataset)
        yield grid, results


def results_page(text: str, pictures: bool = False) -> str:
    """The page with new tables; pictures are drawn only if asked for."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        with results_of(name) as (grid, results):
            lines = read(results)
            tables = tables_of_results(grid, lines, results)
            if pictures:
                plot_rows(grid, lines, MEASURED / f"{name}.png")
        return "\n\n".join([f"<!-- {name} -->", *tables, f"<!-- end of {name} -->"])

    return BLOCK.sub(block, text)


def readme(text: str) -> str:
    """The README with its short tables."""
    return BLOCK.sub(
        lambda match: f"<!-- {match[1]} -->\n\n{short_table(SHORT_TABLES[match[1]])}\n\n<!-- end of {match[1]} -->",
        text,
    )


def readme_picture(path: Path) -> None:
    """Dice over drawn planes for the trainers of the short table, a panel for each data set."""
    panels = {}
    for column, (name, _) in SHORT_TABLES["planes"].items():
        with results_of(name) as (grid, results):
            panels[column.split(",")[0]] = grid, read(results)
    trained = {line["row"] for _, lines in panels.values() for line in lines}
    names = {CONTROL: "control", **{row: name.strip("`") for row, name in SHORT_ROWS.items()}}
    save(curves_side_by_side(panels, {row: name for row, name in names.items() if row in trained}), path)


def gain(grid: Grid, scores: list[Score], row: str, labels: str) -> str:
    """What a row gains over the control; a dash where it is not for such labels."""
    if row not in grid.rows:
        return "-"
    of = ALL_DENSE if grid.rows[row].labels == "dense" else labels
    if not grid.rows[row].is_of(of):
        return "-"
    _, numbers, verdict = difference(scores, f"{row}, {of}", f"{CONTROL}, {labels}")
    return STYLES[verdict].format(numbers)


def short_table(columns: dict[str, tuple[str, str]]) -> str:
    """The control's Dice, and what each trainer gains over it: bold what counts, italic where it does for one seed.

    Trainers that were not trained in any column are left out.
    """
    cells = []
    for name, labels in columns.values():
        with results_of(name) as (grid, results):
            seeds, scores = means(read(results), "dice").get((CONTROL, labels), {}), read_scores(results)
        control = f"{100 * np.mean([*seeds.values()]):.1f} ({', '.join(map(str, sorted(seeds)))})"
        cells.append([control, *(gain(grid, scores, row, labels) for row in SHORT_ROWS)])
    rows = [list(row) for row in zip(["control: Dice in % (seeds)", *SHORT_ROWS.values()], *cells, strict=True)]
    return markdown_table(["", *columns], [row for row in rows if not set(row[1:]) <= {"-", STYLES[""]}])


if __name__ == "__main__":
    PAGE.write_text(results_page(PAGE.read_text(encoding="utf-8"), pictures=True), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    readme_picture(MEASURED / "curves.png")
    print(f"written: {PAGE}, {README}")
