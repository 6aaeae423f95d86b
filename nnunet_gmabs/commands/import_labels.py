"""Turn label files where 0 means both background and not drawn into label files with the ignore label.

Editors write 0 wherever nothing was painted. Say which planes were drawn completely: their zeros are background,
everything else becomes the ignore label.

    gmabs import -d 4 --planes auto           planes that hold labels are found, and shown
    gmabs import -d 4 --planes planes.yaml    a line for each scan: scan_1: [[0, 20], [1, 31], [2, 18]]

Axes are in nnU-Net's order, for NIfTI files the reverse of x, y, z; indices count from 0. A scan that was drawn
completely gets the word all. auto cannot see a drawn plane without any label on it, and refuses scans whose labels
do not look drawn plane by plane. Nothing is changed without --yes, and files are backed up first. Files that hold
the ignore label already stay as they are, so the command can be run again when new labels came in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_gmabs.wording import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument(
        "--planes", metavar="FILE|auto", required=True, help="YAML or JSON file that lists drawn planes, or auto"
    )
    parser.add_argument("--yes", action="store_true", help="do it; without, only show what was found")


def run(args: argparse.Namespace) -> int:
    """Show what was found, and turn the files if told so; 1 if there was something to do and no --yes."""
    from tqdm import tqdm

    from nnunet_gmabs.annotation.import_labels import AUTO, apply_import, plan_import, read_plane_list
    from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
    from nnunet_gmabs.data.cases import check_dataset_json

    raw = RawFolder(find_raw_folder(args.dataset))
    check_dataset_json(raw)  # label files must not get an ignore label that `gmabs prepare` refuses
    planes = None if args.planes == AUTO else read_plane_list(Path(args.planes))
    plan = plan_import(raw, planes, lambda paths: tqdm(paths, "looking at labels", unit="scan", leave=False))
    for scan in plan.scans:
        print(f"{scan.identifier}: {describe(scan.planes)}; {scan.labelled_voxels} labelled voxels")
    if plan.imported:
        print(f"left as they are, with the ignore label already: {count(len(plan.imported), 'scan')}")
    if not plan.scans:
        print("nothing to do")
        return 0
    if not args.yes:
        print(f"Everything else becomes {plan.ignore_label}, the ignore label. Right? Then run it again with --yes.")
        return 1
    backup = apply_import(raw, plan, lambda scans: tqdm(scans, "writing labels", unit="scan", leave=False))
    print(f"done; the files as they were: {backup}" if backup else "nothing to change")
    return 0


def describe(planes: list[tuple[int, int]] | None) -> str:
    """Planes in words."""
    if planes is None:
        return "all of it drawn"
    if not planes:
        return "nothing drawn, becomes an unlabelled scan"
    return ", ".join(f"axis {axis} index {index}" for axis, index in planes)
