"""Installing, finding the trainers through nnU-Net, uninstalling: in an environment of its own.

The environment borrows the heavy packages: a path file names a folder of links to everything that is
installed here, except nnunet_gmabs. So what these tests see of it can only come from their own pip.
"""

import json
import os
import pkgutil
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "nnunet_gmabs" / "nnunet_ext" / "gmabs_trainers.py"

# Prints the variable as a Python program sees it, and as a program started by that one sees it.
SHOW_VARIABLE = """
import json, os, subprocess, sys
child = "import os; print(os.environ.get('nnUNet_extTrainer'), end='')"
value = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
print(json.dumps([os.environ.get("nnUNet_extTrainer"), value]))
"""
FIND_TRAINERS = """
import json
from nnunet_gmabs.nnunet_ext.gmabs_trainers import __all__ as names
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
classes = [recursive_find_trainer_class_by_name(name) for name in names]
import nnunet_gmabs
print(json.dumps([nnunet_gmabs.__file__, {c.__name__: c.__module__ for c in classes}, names]))
"""


class Environment:
    """A virtual environment with the heavy packages of this one, without nnunet_gmabs."""

    def __init__(self, folder: Path):
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.site = Path(self.python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        (self.site / "borrowed.pth").write_text(str(link_packages(folder / "borrowed")) + "\n")
        self.project = folder / "pröject of a user's"  # a path that needs quoting everywhere
        self.project.mkdir()
        shutil.copytree(ROOT / "nnunet_gmabs", self.project / "nnunet_gmabs", ignore=shutil.ignore_patterns("__pyc*"))
        for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, self.project)

    def run(self, *command, **variables) -> subprocess.CompletedProcess:
        """Run a command in a shell in which only nnU-Net's own three variables are set."""
        shell = {"PATH": os.pathsep.join([str(self.bin), os.defpath]), "HOME": str(self.folder)}
        shell |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", "SYSTEMROOT", "LANG") if name in os.environ}
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            shell[name] = str(self.folder / name)
            Path(shell[name]).mkdir(exist_ok=True)
        result = subprocess.run(command, env=shell | variables, cwd=self.folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    def python(self, *arguments, **variables) -> subprocess.CompletedProcess:
        return self.run(self.bin / "python", *arguments, **variables)

    def pip(self, *arguments):
        self.python("-m", "pip", "--isolated", "--disable-pip-version-check", "-q", *arguments)

    def install(self, kind: str):
        editable = ["-e"] if kind == "editable" else []
        self.pip("install", "--no-index", "--no-deps", "--no-build-isolation", *editable, self.project)

    def variable(self, *options, **variables) -> list[str | None]:
        """The variable's value in a Python program, and in a program started by it."""
        return json.loads(self.python(*options, "-c", SHOW_VARIABLE, **variables).stdout)

    def files(self) -> set[Path]:
        inside = {path for path in (self.folder / "venv").rglob("*") if "pip" not in path.parts}
        return inside | {path for path in self.project.rglob("*") if "__pycache__" not in path.parts}


def link_packages(folder: Path) -> Path:
    """Fill a folder with links to every installed package but ours; start-up files are left out."""
    folder.mkdir()
    sources = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    for source in map(Path, dict.fromkeys(sources)):
        for path in source.iterdir() if source.is_dir() else []:
            ours = path.name.startswith(("nnunet_gmabs", "__editable__"))
            if not ours and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory):
    """An environment with nnunet_gmabs, and the folder from which the package must be imported there."""
    environment = Environment(tmp_path_factory.mktemp(request.param))
    environment.install(request.param)
    home = environment.site if request.param == "wheel" else environment.project
    return environment, home / "nnunet_gmabs"


@pytest.mark.slow
def test_nnunet_finds_our_trainers_where_only_its_own_variables_are_set(installed):
    environment, package = installed
    home, found, names = json.loads(environment.python("-c", FIND_TRAINERS).stdout.splitlines()[-1])
    assert home == str(package / "__init__.py")
    assert {"nnUNetTrainerSparse", "nnUNetTrainerMeanTeacher"} <= set(names)
    assert sorted(found) == sorted(names)
    assert all(module.startswith("nnunet_gmabs.trainers.") for module in found.values())


@pytest.mark.slow
def test_doctor_finds_nothing_wrong_after_installation(installed):
    environment, _ = installed
    assert "nnUNetTrainerSparse" in environment.run(environment.bin / "gmabs", "doctor").stdout


def test_our_folder_is_all_there_is_where_the_user_gave_none(installed):
    environment, package = installed
    ours = str(package / "nnunet_ext")
    assert environment.variable() == [ours, ours]
    assert environment.variable(nnUNet_extTrainer="") == [ours, ours]


def test_the_users_folders_are_kept_and_ours_follows_once(installed):
    environment, package = installed
    users = os.pathsep.join(["/somewhere/my trainers", "/elsewhere"])
    expected = os.pathsep.join([users, str(package / "nnunet_ext")])
    assert environment.variable(nnUNet_extTrainer=users) == [expected, expected]
    assert environment.variable(nnUNet_extTrainer=expected) == [expected, expected]


def test_isolated_python_finds_the_folder_too(installed):
    environment, package = installed
    assert environment.variable("-I")[0] == str(package / "nnunet_ext")


def test_the_scanned_folder_holds_one_module(installed):
    _, package = installed
    assert [module.name for module in pkgutil.iter_modules([str(package / "nnunet_ext")])] == ["gmabs_trainers"]


def test_python_starts_silently_where_the_package_was_deleted_by_hand(installed):
    environment, package = installed
    package.rename(package.with_name("away"))
    try:
        assert environment.python("-c", "pass").stderr == ""
        assert environment.variable(nnUNet_extTrainer="/elsewhere") == ["/elsewhere", "/elsewhere"]
        assert environment.variable() == [None, "None"]
    finally:
        package.with_name("away").rename(package)


def test_a_failing_import_reaches_the_user_with_its_own_cause(monkeypatch):
    find = pytest.importorskip("nnunetv2.utilities.find_class_by_name")
    monkeypatch.setitem(sys.modules, "nnunet_gmabs.trainers.base", None)
    with pytest.raises(ImportError, match="nnunet_gmabs.trainers.base"):
        find.recursive_find_python_class(str(SHIM.parent), "nnUNetTrainerSparse", None)


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_uninstalling_leaves_no_file_and_no_warning(kind, tmp_path):
    environment = Environment(tmp_path)
    before = environment.files()
    environment.install(kind)
    assert environment.python("-c", "import nnunet_gmabs.cli").stderr == ""
    environment.run(environment.bin / "gmabs", "--version")
    environment.pip("uninstall", "-y", "nnunet_gmabs")
    made_by_pip = {environment.project / "build", environment.project / "nnunet_gmabs.egg-info"}  # as for any package
    left = {path for path in environment.files() - before if not made_by_pip & {path, *path.parents}}
    assert left == set()
    assert environment.python("-c", "pass").stderr == ""
    assert environment.variable(nnUNet_extTrainer="/elsewhere") == ["/elsewhere", "/elsewhere"]
