"""The whole way on synthetic data: make scans, keep a few planes, prepare, train on the CPU, predict, compare.

Makes 24 scans with two organs, keeps the labels of three planes in 6 of them, and trains stock nnU-Net (with the
ignore label), nnUNetTrainerSparse, nnUNetTrainerMeanTeacher, nnUNetTrainerGMABS and nnUNetTrainerGMABSActive (which
asks a simulated expert for 12 planes more) for the same number of iterations with nnU-Net's own commands. Ends with
the Dice on 8 scans that none of them saw. Needs no GPU; under a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--folder",
        type=Path,
        help="for everything that is made (default: work/demo, or the next free work/demo_2, ...)",
    )
    parser.add_argument("--iterations", type=int, default=600, help="training steps of each method (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of scans, labels and trainings (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Run it, and end by naming what to look at."""
    import signal
    import sys
    import time

    from tqdm import tqdm

    from nnunet_gmabs.demo.run import DemoOptions, run_demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the trainings must not go on alone
    start = time.monotonic()
    options = DemoOptions(args.folder or free_folder(Path("work/demo")), args.iterations, args.seed)
    print(f"Everything goes to {options.folder.resolve()}; remove that folder when you have seen enough.", flush=True)
    result = run_demo(
        options,
        lambda line: print(line, flush=True),
        lambda items, title: tqdm(items, title, unit="", leave=False),
    )
    print(f"\n{result.table}\n")
    print("Means over 8 held-out scans, one seed; minutes of training, side by side. Paired over the scans:")
    for line in result.claims:
        print(f"  {line}")
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes in all. Look at:")
    print(f"  {result.page}    the report: trainings, what the generalist saw, Dice")
    print(f"  {result.picture}    contours of truth and prediction on held-out slices")
    print(f"  {result.scores}    Dice of every scan and class")
    for path in sorted(result.place.results.glob("*/*/fold_0")):
        print(f"  {path}    checkpoint_final.pth, progress.png and logs of one training")
    return 0


def free_folder(wanted: Path) -> Path:
    """The folder itself, or the first of _2, _3, ... that does not exist."""
    number, folder = 2, wanted
    while folder.exists():
        folder = wanted.with_name(f"{wanted.name}_{number}")
        number += 1
    return folder
