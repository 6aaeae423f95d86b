"""Check Python, packages, nnU-Net, devices, memory and disk, and say the cure for each thing that is wrong.

Ends with exit code 1 when something is wrong; warnings alone do not count.
"""

from __future__ import annotations

import argparse
import warnings

from nnunet_gmabs.doctor import ERROR, WARNING, Finding, examine

MARKS = {"ok": "ok", "warning": "warning", "error": "WRONG"}
NAME_WIDTH = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Print each finding as it is made, then the sum."""
    count = {WARNING: 0, ERROR: 0, "ok": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' deprecations are not the patient
        for finding in examine():
            print(layout(finding), flush=True)
            count[finding.level] += 1
    wrong = plural(count[ERROR], "thing") if count[ERROR] else "Nothing"
    print(f"\n{wrong} wrong, {plural(count[WARNING], 'warning')}.")
    return 1 if count[ERROR] else 0


def layout(finding: Finding) -> str:
    """One line: mark, name, value; for complaints the cure in a second line, below the value."""
    line = f"{MARKS[finding.level]:9}{finding.name:{NAME_WIDTH}} {finding.value}"
    return f"{line}\n{'':{9 + NAME_WIDTH}} -> {finding.cure}" if finding.cure else line


def plural(number: int, noun: str) -> str:
    """The number with its noun, such as "1 thing" or "no warnings"."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
