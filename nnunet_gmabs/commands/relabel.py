"""Let the generalist label all scans, prompted by a finished model.

    gmabs relabel -d 4 --from nnUNet_results/Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres -f 0 -o LABELS

One round of what nnUNetTrainerGMABS does, with any model that nnU-Net has trained on this data set: a label file for
each preprocessed scan, on the scan's own grid. Voxels that an expert drew keep the expert's label. Which generalist is
asked, and how, is read from gmabs.yaml of the data set and the file in nnUNet_gmabs_config, as for a training.

Several processes can share the work as with nnUNetv2_predict: -num_parts 4 -part_id 0 ... 3. What was killed goes on
where it was when it is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nnunet_gmabs.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID or name of the data set")
    parser.add_argument("--from", dest="model", metavar="FOLDER", type=Path, required=True, help="folder of a training")
    parser.add_argument("-f", dest="fold", metavar="FOLD", help="fold whose network is used (default: the first)")
    parser.add_argument("-chk", dest="checkpoint", help="file in the fold's folder (default: final, else best)")
    parser.add_argument(
        "-o", dest="output", metavar="OUT", type=Path, help="gets the labels (default: relabelled in the fold's folder)"
    )
    parser.add_argument("-num_parts", type=int, default=1, help="processes that share the work (default: 1)")
    parser.add_argument("-part_id", type=int, default=0, help="which of them this is, from 0 (default: 0)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: a GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """Label the scans of this part, and print the figures of the round so far."""
    from nnunet_gmabs.commands.model import Model
    from nnunet_gmabs.commands.relabelling import open_job
    from nnunet_gmabs.report.prompts import draw_prompts

    if not 0 <= args.part_id < args.num_parts:
        raise InputError(f"-part_id {args.part_id}: must be from 0 to {args.num_parts - 1}, one less than -num_parts")
    model = Model(args.model, [args.fold] if args.fold else None, args.checkpoint)
    output = args.output or model.folder / f"fold_{model.folds[0]}" / "relabelled"
    job = open_job(args.dataset, model, output, args.device, args.num_parts, print)
    part = slice(args.part_id, None, args.num_parts)
    print(f"{model.folder}, fold {model.folds[0]}: labels {len(job.missing(part))} of {len(job.identifiers)} scans")
    figures, examples = job.run(part, _progress_bar)
    for name, value in figures.items():
        print(f"  {name:24} {value:.4g}")
    if examples:
        name = "prompts.png" if args.num_parts == 1 else f"prompts_part_{args.part_id}.png"
        draw_prompts(output / name, examples)
        print(f"what the generalist saw: {output / name}")
    left = len(job.missing())
    print(f"labels: {output}" + (f"; {left} scans are left to other parts" if left else ""))
    return 0


def _progress_bar(identifiers: Sequence[str]) -> Iterator[str] | Iterable[str]:
    from tqdm import tqdm

    return tqdm(identifiers, "relabelling", unit=" scans", disable=None)
