"""Check Python, packages, nnU-Net, devices, memory and disk, and say the cure for each thing that is wrong.

Ends with exit code 1 when something is wrong; warnings alone do not count.
"""

from __future__ import annotations

import argparse
import warnings

from nnunet_gmabs.doctor import ERROR, WARNING, Finding, examine
from nnunet_gmabs.wording import count

MARKS = {"ok": "ok", "warning": "warning", "error": "WRONG"}
NAME_WIDTH = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Print each finding as it is made, then the sum."""
    found = {WARNING: 0, ERROR: 0, "ok": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' deprecations are not the patient
        for finding in examine():
            print(layout(finding), flush=True)
            found[finding.level] += 1
    wrong = count(found[ERROR], "thing") if found[ERROR] else "Nothing"
    warned = count(found[WARNING], "warning") if found[WARNING] else "no warnings"
    print(f"\n{wrong} wrong, {warned}.")
    return 1 if found[ERROR] else 0


def layout(finding: Finding) -> str:
    """One line: mark, name, value; for complaints the cure in a second line, below the value."""
    line = f"{MARKS[finding.level]:9}{finding.name:{NAME_WIDTH}} {finding.value}"
    return f"{line}\n{'':{9 + NAME_WIDTH}} -> {finding.cure}" if finding.cure else line
