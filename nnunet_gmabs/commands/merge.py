"""Merge what experts have drawn into labelsTr.

Without PATH all answers that have arrived are taken, from `gmabs annotate` or elsewhere. With PATH files that were
painted in 3D Slicer, ITK-SNAP or another program (.nii.gz, .nrrd, .seg.nrrd): say which planes are drawn completely,
because these programs write 0 both for background and for not drawn.

    gmabs merge -d 4
    gmabs merge -d 4 --dry-run
    gmabs merge -d 4 scan_07_labels.nii.gz --done all
    gmabs merge -d 4 scan_07.seg.nrrd --done 0:12 1:30

Everything is checked before anything is changed: place in space, values, planes. What was drawn earlier is never
overwritten silently. Labels, nnU-Net's copies and the expert files on the training grid follow, also while a training
runs. `gmabs unmerge` takes a round back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    from nnunet_gmabs.annotation.raw_folder import RawFolder
    from nnunet_gmabs.annotation.sources import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="label files painted elsewhere")
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "--round", type=int, metavar="R", help="only this round (default: all; PATH: the newest that asks for the scan)"
    )
    parser.add_argument(
        "--done",
        nargs="+",
        metavar="AXIS:INDEX",
        help="planes that are drawn completely in the files named by PATH, or all; axes in nnU-Net's order",
    )
    parser.add_argument("--extra-planes", action="store_true", help="also take planes that nobody asked for")
    parser.add_argument(
        "--on-conflict",
        choices=("keep", "replace"),
        help="where an answer contradicts what was drawn earlier (default: refuse, and list where)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")


def run(args: argparse.Namespace) -> int:
    """Merge, and say what was done."""
    from tqdm import tqdm

    from nnunet_gmabs.annotation.merge import merge, plan_merge
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder

    raw = RawFolder(find_raw_folder(args.dataset))

    def progress(sources):
        return tqdm(sources, "checking answers", unit="scan", leave=False, disable=len(sources) < 3)

    how = args.on_conflict, args.extra_planes, progress
    if args.dry_run:
        merges = plan_merge(raw, find_sources(raw, args), *how)
    else:
        merges = merge(raw, lambda: find_sources(raw, args), *how)
    for planned in merges:
        print(planned.describe())
    changed = sorted({planned.identifier for planned in merges if planned.labels is not None})
    if not changed:
        print("nothing to merge: no answer says anything that is not in labelsTr already")
    elif args.dry_run:
        print(f"labels of {count(len(changed), 'scan')} would change; nothing was changed (--dry-run)")
    else:
        print(f"merged: labels of {count(len(changed), 'scan')} changed")
    if not args.dry_run:
        follow(raw, args.dataset, bool(changed))
    return 0


def find_sources(raw: RawFolder, args: argparse.Namespace) -> list[Source]:
    """The answers that the arguments ask for.

    Raises:
        InputError: if --done is given without PATH, or names planes for more than one file.
    """
    from nnunet_gmabs.annotation.sources import parse_done, source_of, waiting_sources
    from nnunet_gmabs.errors import InputError

    done = parse_done(args.done)
    if not args.paths:
        if done is not None:
            raise InputError("--done belongs to files: name them; answers in a round say themselves what is done")
        return waiting_sources(raw, None if args.round is None else [args.round])
    if len(args.paths) > 1 and isinstance(done, list):
        raise InputError("--done AXIS:INDEX belongs to one scan; merge the files one by one, or say --done all")
    return [source_of(raw, path, done, args.round) for path in args.paths]


def follow(raw: RawFolder, dataset: str, changed: bool, command: str = "merge") -> None:
    """Bring what is prepared up to date, and say what is left to `gmabs prepare`.

    All scans that the ledger knows are looked at: an earlier command may have been killed before it came here. Labels
    are changed for good when this begins, so what fails here is a warning.
    """
    import os
    import sys

    from nnunet_gmabs.annotation.ledger import read_events

    scans = sorted({event["scan"] for event in read_events(raw.folder) if event["event"] in ("merged", "unmerged")})
    if not scans or not os.environ.get("nnUNet_preprocessed"):
        return
    from nnunet_gmabs.data.cases import preprocessed_folder
    from nnunet_gmabs.data.follow import follow_labels
    from nnunet_gmabs.errors import InputError

    try:
        if not preprocessed_folder(raw.folder).is_dir():
            return
        followed = follow_labels(raw, scans)
    except (InputError, OSError, RuntimeError) as error:  # RuntimeError: blosc2 has no finer one
        print(
            f"gmabs {command}: warning: labelsTr is done, what is prepared did not follow ({error}); "
            f"run: gmabs prepare -d {dataset}",
            file=sys.stderr,
        )
        return
    if changed and followed:
        print(f"on the training grid as well: {', '.join(followed)}")
    if changed:
        print(f"before the next training: gmabs prepare -d {dataset}")
