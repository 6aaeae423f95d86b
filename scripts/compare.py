"""Compare methods by their Dice on the same scans: paired differences, bootstrapped over scans and seeds.

    python scripts/compare.py STOCK.csv OURS.csv [OTHER.csv ...]
    python scripts/compare.py work/demo/dice.csv --reference "stock nnU-Net"

Files are those of `gmabs evaluate --csv` (columns scan, class, dice; cell and seed where there are several). Without
a value in column cell, a method is called after its file. Every method is compared with --reference, which is the first
one unless named. A difference counts ("yes") when its interval excludes 0, from eight scans on; "one seed" says that it
does so for other scans, and that other trainings may differ. Where the truth lacks a class and one method alone
invents it, that method counts 0 and the other 100.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.scores import Score, paired_differences, read_scores
from nnunet_gmabs.report.statistics import paired_bootstrap
from nnunet_gmabs.report.tables import markdown_table, plain_table

HEADER = ["difference in Dice, points", "class", "mean", "from", "to", "seeds", "scans", "counts"]


def compare(scores: list[Score], reference: str, level: float, resamples: int) -> list[list[str]]:
    """One row for each other method and class, and for the mean over classes."""
    cells = list(dict.fromkeys(score.cell for score in scores))
    if reference not in cells:
        raise InputError(f"--reference {reference}: not among {', '.join(cells)}")
    labels = sorted({score.label for score in scores})
    rows = []
    for cell in cells:
        for label in () if cell == reference else (*labels, None):
            differences, seeds, scans = paired_differences(scores, cell, reference, label)
            first = [f"{cell} - {reference}", "mean" if label is None else str(label)]
            if not differences.size:  # a class that no scan has
                rows.append([*first, "-", "-", "-", str(len(seeds)), "0", "-"])
                continue
            result = paired_bootstrap(100 * differences, level, resamples)
            numbers = [f"{value:+.1f}" for value in (result.mean, result.low, result.high)]
            rows.append([*first, *numbers, str(len(seeds)), str(len(scans)), result.verdict])
    return rows


def main() -> int:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--reference", help="method that the others are compared with (default: the first)")
    parser.add_argument("--level", type=float, default=0.9, help="coverage of the interval (default 0.9)")
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples (default 10000)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    args = parser.parse_args()
    try:
        scores = [score for path in args.files for score in read_scores(path)]
        if len({score.cell for score in scores}) < 2:
            raise InputError(f"{args.files[0]}: only one method; name two files")
        rows = compare(scores, args.reference or scores[0].cell, args.level, args.resamples)
    except InputError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    print((markdown_table if args.markdown else plain_table)(HEADER, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
