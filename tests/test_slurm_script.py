"""scripts/slurm_array.sh: each step calls the command that it names, with options that the command has."""

import os
import subprocess
from pathlib import Path

import pytest

from nnunet_gmabs import cli

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "slurm_array.sh"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs bash")


def run(tmp_path, *arguments, task="2"):
    """Standard output and exit status, with commands that print what they are called with."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gmabs", "nnUNetv2_train"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" DA=$nnUNet_n_proc_DA\n')
        (programs / name).chmod(0o755)
    (tmp_path / "results/Dataset004_A/nnUNetTrainerGMABS__nnUNetPlans__3d_fullres").mkdir(parents=True)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "nnUNet_results": str(tmp_path / "results"),
        "SLURM_ARRAY_TASK_ID": task,
        "SLURM_CPUS_PER_TASK": "12",
    }
    done = subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)
    return done.stdout.replace(str(tmp_path), "TMP"), done.returncode


def test_the_script_has_no_syntax_error():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("prepare", "gmabs prepare -d 4 -c 3d_fullres -p nnUNetPlans"),
        ("embed", "gmabs embed -d 4 -c 3d_fullres -p nnUNetPlans -num_parts 4 -part_id 2"),
        ("train", "nnUNetv2_train 4 3d_fullres 2 -tr nnUNetTrainerGMABS -p nnUNetPlans --c"),
        ("relabel", "gmabs relabel -d 4 --from MODEL -f 0 -num_parts 4 -part_id 2"),
        ("ask", "gmabs ask -d 4 --from MODEL --strategy uncertainty-diverse --scans 4 -num_parts 4 -part_id 2"),
    ],
)
def test_each_step_calls_its_command(tmp_path, step, call):
    model = "TMP/results/Dataset004_A/nnUNetTrainerGMABS__nnUNetPlans__3d_fullres"
    assert run(tmp_path, step) == (call.replace("MODEL", model) + " DA=11\n", 0)
    if call.startswith("gmabs"):
        cli.build_parser().parse_args(call.split()[1:])  # exits where there is no such option


@pytest.mark.parametrize("arguments", [[], ["predict"]])
def test_other_steps_are_refused(tmp_path, arguments):
    printed, status = run(tmp_path, *arguments)
    assert printed == "" and status != 0
