"""The directions of the imports, read from the source text, and the names that other code builds on."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nnunet_gmabs"

# A station, and what of this package it may import besides itself and the base.
BASE = {"errors", "files", "wording", "__version__"}
STATIONS = {
    "config": set(),
    "presets": {"config"},
    "settings": {"config"},
    "learning": set(),
    "annotation": set(),
    "data": {"annotation", "config", "learning"},
    "generalist": {"learning", "data", "config", "inference"},
    "active": {"annotation"},
    "inference": set(),
    "postprocessing": {"generalist"},
    "report": {"annotation", "config", "data", "settings"},
    "trainers": {
        "active",
        "annotation",
        "config",
        "data",
        "generalist",
        "inference",
        "learning",
        "postprocessing",
        "presets",
        "report",
        "settings",
    },
    "nnunet_ext": {"trainers"},
    "train": {"trainers"},
    "doctor": {"generalist"},
    "demo": {"annotation", "config", "data", "doctor", "inference", "report", "trainers"},
    "commands": {
        "active",
        "annotation",
        "config",
        "data",
        "demo",
        "doctor",
        "generalist",
        "inference",
        "learning",
        "postprocessing",
        "presets",
        "report",
        "settings",
    },
    "cli": {"commands"},
}
# Mathematics: arrays in, arrays out.
PURE = ["learning", "active", "annotation/planes.py"]
PURE += [f"generalist/{name}.py" for name in ("prototypes", "prompts", "views", "fusion")]
MATHEMATICS = {"numpy", "scipy", "sklearn", "torch", "nnunet_gmabs"}
DISK = {"blosc2", "io", "json", "os", "pathlib", "pickle", "shutil", "sqlite3", "subprocess", "tempfile", "zipfile"}
DISK_CALLS = {"open", "load", "save", "savez", "savez_compressed", "loadtxt", "savetxt", "fromfile", "tofile", "memmap"}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def running_nodes(tree):
    """All nodes but those below `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        if not is_type_checking(child):
            yield child
            yield from running_nodes(child)


def imported(tree):
    """Dotted names that a module imports anywhere, also inside functions: a.b for `from a import b`."""
    for node in running_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def station(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_id(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", modules(), ids=module_id)
def test_stations_import_only_along_the_arrows(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {name.split(".")[1] for name in imported(tree) if name.startswith("nnunet_gmabs.")}
    here = station(path)
    if here in ("__init__", "errors", "files", "wording"):
        assert ours <= {"errors"}, "the base stands on nothing"
        return
    assert here in STATIONS, f"a new station: say in {Path(__file__).name} what it may import"
    assert ours <= STATIONS[here] | BASE | {here}


@pytest.mark.parametrize("path", [p for p in modules() if module_id(p).startswith(tuple(PURE))], ids=module_id)
def test_mathematics_knows_neither_nnunet_nor_disk(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imported(tree)}
    assert not roots & DISK
    assert roots <= MATHEMATICS | set(sys.stdlib_module_names)
    assert "nnunet_gmabs.files" not in {".".join(name.split(".")[:2]) for name in imported(tree)}
    calls = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & DISK_CALLS


@pytest.mark.parametrize("path", modules(), ids=module_id)
def test_only_commands_print(path):
    if station(path) in ("commands", "cli"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert prints == []


def test_the_settings_need_the_standard_library_only():
    tree = ast.parse((PACKAGE / "config.py").read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imported(tree)}
    assert roots <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "code", ["import nnunet_gmabs", "import nnunet_gmabs.cli as cli; cli.build_parser().format_help()"]
)
def test_the_package_and_its_help_import_nothing_heavy(code):
    heavy = {"torch", "numpy", "scipy", "nnunetv2", "SimpleITK", "blosc2", "matplotlib", "segment_anything", "yaml"}
    show = f"import sys; {code}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)


def test_an_import_that_never_runs_is_not_counted_and_one_inside_a_function_is():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nnunet_gmabs.trainers import base
def f():
    import nnunetv2.paths
"""
    assert list(imported(ast.parse(source))) == ["typing.TYPE_CHECKING", "nnunetv2.paths"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "learning.schedules.sigmoid_rampup": "fraction",
        "learning.ema.teacher_decay": "step max_decay",
        "learning.ema.update_teacher": "teacher student decay",
        "learning.losses.masked_cross_entropy": "logits target mask",
        "learning.losses.clip_logits": "logits max_norm",
        "learning.confident.find_label_issues": "probs labels",
        "generalist.prototypes.class_prototypes": "features probs",
        "generalist.prototypes.prototype_probs": "features prototypes scale",
        "generalist.prompts.Prompt": "box_xyxy points_xy point_labels",
        "generalist.prompts.prompt_from_region": "region similarity rng",
        "generalist.fusion.fuse_views": "votes probs strategy",
        "generalist.models.Generalist.encode": "self",
        "generalist.models.Generalist.segment": "self",
        "active.scores.uncertain_fraction": "probs threshold",
        "data.grid.labels_to_training_grid": "labels_orig properties plans_manager configuration_manager ignore_label",
    }.items(),
)
def test_what_other_code_builds_on_keeps_its_name_and_first_parameters(name, parameters):
    module, *rest = re.fullmatch(r"(\w+\.\w+)\.(.+)", name).groups()
    found = importlib.import_module(f"nnunet_gmabs.{module}")
    for part in rest[0].split("."):
        found = getattr(found, part)
    expected = parameters.split()
    assert list(inspect.signature(found).parameters)[: len(expected)] == expected
