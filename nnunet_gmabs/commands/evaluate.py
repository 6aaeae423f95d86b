"""Dice of predictions against true labels, for each scan and class.

    gmabs evaluate -p predictions -g $nnUNet_raw/Dataset004_Hippocampus/labelsTs -l 1 2

Both folders must hold the same scans, on the same grids. A class that neither truth nor prediction has in a scan shows
as a dash and is left out of the means.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-p", dest="predictions", metavar="PRED", type=Path, required=True, help="folder of predictions"
    )
    parser.add_argument("-g", dest="truth", metavar="TRUTH", type=Path, required=True, help="folder of true labels")
    parser.add_argument(
        "-l", dest="labels", metavar="LABEL", type=int, nargs="+", required=True, help="classes, such as 1 2"
    )
    parser.add_argument(
        "--ignore", metavar="VALUE", type=int, help="value in TRUTH whose voxels do not count (default: none)"
    )
    parser.add_argument(
        "--file-ending", metavar="ENDING", default=".nii.gz", help="of the label files (default: .nii.gz)"
    )
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="also write all values to this file; its name tells the method in it"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Compute, print, and write where asked."""
    from nnunet_gmabs.errors import InputError
    from nnunet_gmabs.report.dice import dice_per_class
    from nnunet_gmabs.report.scores import scores_of, write_scores
    from nnunet_gmabs.report.tables import dice_table, markdown_table, plain_table

    if args.csv and not args.csv.parent.is_dir():
        raise InputError(f"--csv {args.csv}: {args.csv.parent} is no folder; make it, or name another file")
    dice = dice_per_class(args.predictions, args.truth, args.labels, args.file_ending, args.ignore)
    print((markdown_table if args.markdown else plain_table)(*dice_table(dice)))
    if args.csv:
        write_scores(args.csv, scores_of(dice, args.csv.stem))
        print(f"written: {args.csv}")
    return 0
