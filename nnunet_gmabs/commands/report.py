"""One HTML page about a data set: what experts were asked and drew, trainings, and Dice where the truth is known.

The page holds everything within itself, opens offline, and can be printed or sent. What is missing is left out with a
sentence, what is damaged is named.

    gmabs report -d 4
    gmabs report -d 4 --from $nnUNet_results/Dataset004_X/nnUNetTrainerGMABS__nnUNetPlans__3d_fullres -o report.html
    gmabs report -d 4 --predictions sparse=predictions_sparse gmabs=predictions_gmabs

A training that asked a simulated expert shows its own rounds, from its output folder.

Predictions are scored against labelsTs, or labelsTr_dense where their names are found there. The first NAME is what the
others are compared with; the same NAME again is another seed of the same method.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    from nnunet_gmabs.annotation.raw_folder import RawFolder

REPORT_FILE = "gmabs_report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "--from",
        dest="trainings",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="trainings to show: nnU-Net's folders of models, or folds in them (default: all in nnUNet_results)",
    )
    parser.add_argument(
        "--predictions", nargs="+", default=[], metavar="NAME=FOLDER", help="label files to be scored against the truth"
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE",
        help=f"the page (default: {REPORT_FILE} in the data set's folder in nnUNet_results, else in its gmabs folder)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the page, and say where it is and what it lacks."""
    from nnunet_gmabs.active.select import MINUTES_PER_PLANE
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.errors import InputError
    from nnunet_gmabs.report.page.build import Inputs, write_report
    from nnunet_gmabs.report.page.trainings import find_trainings, named_trainings
    from nnunet_gmabs.report.page.truth import parse_predictions

    raw = RawFolder(find_raw_folder(args.dataset))
    results = results_folder(raw)
    if args.trainings:
        trainings, none = named_trainings(args.trainings), ""
    elif results is None:
        trainings, none = [], "The variable nnUNet_results is not set, so no training could be looked for."
    else:
        trainings, none = find_trainings(results), "No training of this data set was found in nnUNet_results."
    pre = os.environ.get("nnUNet_preprocessed")
    inputs = Inputs(
        raw,
        trainings,
        parse_predictions(args.predictions),
        Path(pre, raw.folder.name) if pre else None,
        none,
        MINUTES_PER_PLANE,
    )
    output = args.output or default_output(raw, results)
    if not output.parent.is_dir():
        raise InputError(f"-o {output}: {output.parent} is no folder; make it, or name another file")
    for message in write_report(output, inputs):
        print(f"left out: {message}")
    print(f"{count(len(trainings), 'training')} shown; written: {output}")
    return 0


def results_folder(raw: RawFolder) -> Path | None:
    """The data set's folder in nnUNet_results, whether or not it exists; None where the variable is not set."""
    value = os.environ.get("nnUNet_results")
    return Path(value, raw.folder.name) if value else None


def default_output(raw: RawFolder, results: Path | None) -> Path:
    """Beside the trainings, or where the rounds are kept."""
    if results is not None and results.is_dir():
        return results / REPORT_FILE
    folder = raw.folder / "gmabs"
    folder.mkdir(exist_ok=True)
    return folder / REPORT_FILE
