"""Let the generalist label all scans, prompted by a finished model.

    gmabs relabel -d 4 --from $nnUNet_results/Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres -f 0 -o LABELS

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

from nnunet_gmabs.commands.parts import add_part_arguments, part_of
from nnunet_gmabs.wording import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "--from", dest="model", metavar="FOLDER", type=Path, required=True, help="nnU-Net's folder of a training"
    )
    parser.add_argument("-f", dest="fold", metavar="FOLD", help="fold whose network is used (default: the first)")
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        metavar="CHECKPOINT",
        help="file in the fold's folder (default: checkpoint_final.pth, else ..._best.pth, else ..._latest.pth)",
    )
    parser.add_argument(
        "-o", dest="output", metavar="OUT", type=Path, help="gets the labels (default: relabelled in the fold's folder)"
    )
    add_part_arguments(parser)
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: a GPU where there is one")
    parser.add_argument("--yes", action="store_true", help="begin also where encoding takes hours on a CPU")


def run(args: argparse.Namespace) -> int:
    """Label the scans of this part, and print the figures of the round so far."""
    from nnunet_gmabs.commands.model import Model
    from nnunet_gmabs.commands.relabelling import open_job
    from nnunet_gmabs.report.prompts import draw_prompts

    part = part_of(args)
    model = Model(args.model, [args.fold] if args.fold else None, args.checkpoint)
    output = args.output or model.folder / f"fold_{model.folds[0]}" / "relabelled"
    job = open_job(args.dataset, model, output, args.device, args.num_parts, print, args.yes)
    print(f"{model.folder}, fold {model.folds[0]}: labels {len(job.missing(part))} of {len(job.identifiers)} scans")
    figures, examples = job.run(part, _progress_bar)
    for name, value in figures.items():
        print(f"  {name:24} {value:.4g}")
    if examples:
        name = "prompts.png" if args.num_parts == 1 else f"prompts_part_{args.part_id}.png"
        draw_prompts(output / name, examples)
        print(f"what the generalist saw: {output / name}")
    left = len(job.missing())
    print(f"labels: {output}" + (f"; {count(left, 'scan is', 'scans are')} left to other parts" if left else ""))
    return 0


def _progress_bar(identifiers: Sequence[str]) -> Iterator[str] | Iterable[str]:
    from tqdm import tqdm

    return tqdm(identifiers, "relabelling", unit=" scans", disable=None)
