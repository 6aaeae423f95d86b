"""Fill the tables of docs/results.md from the measured trainings that come along.

    python scripts/make_results_page.py

Between <!-- GRID --> and <!-- end of GRID --> in that page stand the claims and scores of scripts/benchmarks/GRID.yaml
as docs/measured/GRID.jsonl has them; docs/measured/GRID.png is drawn beside it. That takes no training and no scans.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from benchmark_grid import Grid
from benchmark_measured import read_measured, write_csv
from plot_benchmark import plot_rows, read, tables_of_results

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
BLOCK = re.compile(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)


def results_page(text: str, pictures: bool = False) -> str:
    """The page with new tables; pictures are drawn only if asked for."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        grid = Grid.read(ROOT / "scripts" / "benchmarks" / f"{name}.yaml")
        measured = ROOT / "docs" / "measured" / f"{name}.jsonl"
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder, "results.csv")
            write_csv(results, grid.todays(read_measured(measured)), grid.dataset)
            lines = read(results)
            tables = tables_of_results(grid, lines, results)
        if pictures:
            plot_rows(grid, lines, measured.with_suffix(".png"))
        return "\n\n".join([f"<!-- {name} -->", *tables, f"<!-- end of {name} -->"])

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(results_page(PAGE.read_text(encoding="utf-8"), pictures=True), encoding="utf-8")
    print(f"written: {PAGE}")
