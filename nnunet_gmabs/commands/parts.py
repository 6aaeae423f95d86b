"""One command's work shared by several processes, with nnU-Net's options: -num_parts 4 -part_id 0 ... 3."""

from __future__ import annotations

import argparse

from nnunet_gmabs.errors import InputError


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare -num_parts and -part_id."""
    parser.add_argument(
        "-num_parts", metavar="N", type=int, default=1, help="processes that share the work (default: 1)"
    )
    parser.add_argument("-part_id", metavar="I", type=int, default=0, help="which of them this is, from 0 (default: 0)")


def part_of(args: argparse.Namespace) -> slice:
    """Which of the sorted scans are this process's.

    Raises:
        InputError: there is no such part.
    """
    if not 0 <= args.part_id < args.num_parts:
        raise InputError(f"-part_id {args.part_id}: must be from 0 to {args.num_parts - 1}, one less than -num_parts")
    return slice(args.part_id, None, args.num_parts)
