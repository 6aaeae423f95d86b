"""NnU-Net's side: its three folders, and whether it finds our trainers."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from nnunet_gmabs.doctor import ERROR, OK, WARNING, Finding
from nnunet_gmabs.errors import first_line

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SCANNED_FOLDER = Path(__file__).resolve().parent.parent / "nnunet_ext"
TRAINER = "nnUNetTrainerSparse"
LOOK_UP = f'import nnunetv2.utilities.find_objects as f; f.recursive_find_trainer_class_by_name("{TRAINER}")'


def check_variables() -> list[Finding]:
    """nnU-Net's three variables must name folders in which files can be made."""
    return [check_variable(name) for name in VARIABLES]


def check_variable(name: str) -> Finding:
    """One variable: set, naming a folder that exists and can be written to, the same one wherever a command is run."""
    value = os.environ.get(name, "")
    if not value:
        return Finding(name, ERROR, "not set", f"export {name}=FOLDER, in every shell (for example in ~/.bashrc)")
    home = os.path.expanduser(value)
    if home != value:
        return Finding(name, ERROR, f"{value}: a ~ in quotes is not your home folder", f"export {name}='{home}'")
    if not os.path.exists(value):
        return Finding(name, ERROR, f"{value} does not exist", f"mkdir -p '{value}', or correct the variable")
    if not os.path.isdir(value):
        return Finding(name, ERROR, f"{value} is a file", f"let {name} name a folder")
    if not os.access(value, os.W_OK | os.X_OK):
        return Finding(name, ERROR, f"{value} is read-only here", "change its owner or mode, or name another folder")
    if not os.path.isabs(value):
        whole = os.path.abspath(value)
        return Finding(name, WARNING, f"{value} names another folder wherever you are", f"export {name}='{whole}'")
    return Finding(name, OK, value)


def check_trainers() -> list[Finding]:
    """nnUNet_extTrainer must name our folder, and nnU-Net's own look-up must find a trainer of ours."""
    named = [entry for entry in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if entry.strip()]
    findings = [
        Finding("nnUNet_extTrainer", WARNING, f"{entry} does not exist", "take it out of the variable")
        for entry in named
        if not os.path.isdir(entry)
    ]
    if not any(Path(entry).resolve() == SCANNED_FOLDER for entry in named):
        # The start-up file does its work unless Python is told to skip it (-S), or the package was
        # put on PYTHONPATH or into a --target folder instead of being installed.
        cure = f"pip install . again; or, where that is no way, export nnUNet_extTrainer={SCANNED_FOLDER}"
        return [*findings, Finding("trainers", ERROR, "nnUNet_extTrainer does not name our folder", cure)]
    return [*findings, look_up_trainer()]


def look_up_trainer() -> Finding:
    """Find a trainer of ours as nnUNetv2_train does; takes some seconds, for nnU-Net imports all of its own first."""
    try:
        # nnU-Net tells on stdout where it looks.
        with contextlib.redirect_stdout(io.StringIO()):
            from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

            found = recursive_find_trainer_class_by_name(TRAINER)
    except Exception as error:  # anything that importing any trainer raises
        cure = f"see the whole of it: python -c '{LOOK_UP}'"
        return Finding("trainers", ERROR, f"{TRAINER} not found: {type(error).__name__}: {first_line(error)}", cure)
    if not found.__module__.startswith("nnunet_gmabs."):
        cure = f"remove or rename that class: nnU-Net takes the first {TRAINER} it meets"
        return Finding("trainers", ERROR, f"nnU-Net finds another {TRAINER}, in {found.__module__}", cure)
    return Finding("trainers", OK, f"nnU-Net finds {TRAINER} through {SCANNED_FOLDER}")
