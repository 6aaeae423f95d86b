"""Take a merged round back: label files are again what they were before, byte for byte.

    gmabs unmerge -d 4 --round 2

Answers of `gmabs annotate` stay where they are, and `gmabs merge` takes them again; files painted elsewhere have to be
named again. Refused if a later round was merged into one of the scans, or a label file was changed since.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument("--round", type=int, metavar="R", required=True, help="the round to take back")


def run(args: argparse.Namespace) -> int:
    """Take it back, and say what was done."""
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.annotation.unmerge import unmerge
    from nnunet_gmabs.commands.merge import follow

    raw = RawFolder(find_raw_folder(args.dataset))
    taken = unmerge(raw, args.round)
    for scan in taken:
        what = "has no label file any more" if scan.removed else "as before"
        print(f"{scan.identifier}: {what}" + ("; an earlier merge of this round lies deeper" if scan.deeper else ""))
    if not taken:
        print(f"nothing of round {args.round} is merged")
    follow(raw, args.dataset, bool(taken), "unmerge")
    return 0
