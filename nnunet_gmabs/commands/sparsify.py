"""Make a barely labelled copy of a densely labelled data set, for experiments.

SRC keeps labels of a few planes in a few scans in DST; all else becomes the ignore label, scans without planes have
no label file. Dense labels stay beside in labelsTr_dense as the oracle, and imagesTs and labelsTs come along.
Images are hard-linked (copied where that is not possible), labels are copied.

    gmabs sparsify Dataset004_Hippocampus Dataset104_HippocampusSparse --scans 6 --planes 3 --seed 0
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.wording import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SRC", help="dense data set: ID, name under nnUNet_raw, or folder")
    parser.add_argument("target", metavar="DST", help="copy to make: DatasetXXX_Name under nnUNet_raw, or folder")
    parser.add_argument("--scans", metavar="K", type=int, required=True, help="training scans that keep labels")
    parser.add_argument(
        "--planes",
        type=_planes,
        metavar="N",
        default=3,
        help="planes kept in each; 3 = one on each axis (default); all = the scan is labelled densely",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the scans and random planes (default: 0)")
    parser.add_argument(
        "--position",
        choices=("roi-middle", "random"),
        default="roi-middle",
        help="planes through the middle of the foreground's box (default), or anywhere through the foreground",
    )
    parser.add_argument(
        "--test", metavar="N", type=int, default=0, help="training scans moved to the test set first (default: 0)"
    )
    parser.add_argument("--test-seed", type=int, default=0, help="draws these, whatever --seed is (default: 0)")


def _planes(text: str) -> int | None:
    if text == "all":
        return None
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: a number, or 'all'")


def run(args: argparse.Namespace) -> int:
    """Make the copy and say what it holds."""
    from tqdm import tqdm

    from nnunet_gmabs.annotation.raw_folder import find_raw_folder
    from nnunet_gmabs.annotation.sparsify import SparsifyPlan, sparsify

    plan = SparsifyPlan(args.scans, args.planes, args.seed, args.position, args.test, args.test_seed)
    target = target_folder(args.target)
    result = sparsify(find_raw_folder(args.source), target, plan, lambda scans: tqdm(scans, "labels", unit="scan"))
    print(f"{target}")
    for identifier, planes in sorted(result.planes.items()):
        where = ", ".join(f"axis {axis} index {index}" for axis, index in planes)
        print(f"  {identifier}: " + (where if args.planes is not None else f"all {count(len(planes), 'plane')}"))
    print(
        f"  {count(len(result.planes), 'scan')} labelled, {len(result.unlabelled)} unlabelled, "
        f"{len(result.test)} moved to test"
    )
    print(f"  image files: {result.linked} hard-linked, {result.copied} copied")
    return 0


def target_folder(name: str) -> Path:
    """Where the copy goes: a path as given, a name below nnUNet_raw.

    Raises:
        InputError: if the name is not one nnU-Net would find.
    """
    import re

    from nnunet_gmabs.annotation.raw_folder import raw_root

    path = Path(name)
    if not re.fullmatch(r"Dataset\d{3}_.+", path.name):
        raise InputError(f"{name}: nnU-Net finds only names such as Dataset104_{path.name or 'Name'}")
    folder = path if len(path.parts) > 1 else raw_root() / name
    same_id = [p for p in folder.parent.glob(f"{folder.name[:10]}_*") if p != folder]
    if same_id:
        raise InputError(f"{name}: {same_id[0]} has the same ID already; choose another number")
    return folder
