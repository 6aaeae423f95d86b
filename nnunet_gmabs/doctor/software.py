"""Python and the packages: are they there, new enough, and built for each other?"""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path

from nnunet_gmabs.doctor import ERROR, OK, Finding
from nnunet_gmabs.errors import first_line

MINIMUM_PYTHON = (3, 10)
REINSTALL = "in this environment and in the folder of this project: pip install ."
# A CPU-only torch with the usual torchvision is the common way to get here.
SAME_BUILD = "install both from one source, in one command: pip install --force-reinstall torch torchvision"


def check_python() -> list[Finding]:
    """The interpreter must be new enough; pip sees to it, but not for a package found through PYTHONPATH."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < MINIMUM_PYTHON:
        wanted = ".".join(map(str, MINIMUM_PYTHON))
        return [Finding("Python", ERROR, found, f"make an environment with Python {wanted} or newer")]
    return [Finding("Python", OK, found)]


def check_requirements() -> list[Finding]:
    """Every package that ours requires must be installed in a version within its bounds.

    Returns:
        One finding for our package, one for nnU-Net, and one for each package that is missing or out of bounds.
    """
    from packaging.requirements import Requirement

    home = Path(__file__).resolve().parent.parent
    try:
        version, lines = metadata.version("nnunet_gmabs"), metadata.requires("nnunet_gmabs") or []
    except metadata.PackageNotFoundError:
        return [Finding("nnunet_gmabs", ERROR, f"imported from {home}, but not installed", REINSTALL)]
    findings = [Finding("nnunet_gmabs", OK, f"{version} ({home})")]
    requirements = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": ""})]
    checked = [check_requirement(str(r.name), str(r.specifier)) for r in requirements]
    findings += [f for f in checked if f.level != OK or f.name == "nnunetv2"]
    if all(f.level == OK for f in findings):
        findings.append(Finding("other packages", OK, f"all {len(checked) - 1} there, none too old"))
    return findings


def check_requirement(package: str, specifier: str) -> Finding:
    """Compare the installed version of one package with its bounds, such as ">=0.25.5"."""
    from packaging.specifiers import SpecifierSet

    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Finding(package, ERROR, "not installed", f"pip install '{package}{specifier}'")
    if not SpecifierSet(specifier).contains(version, prereleases=True):
        return Finding(package, ERROR, f"{version}, but {specifier} is needed", f"pip install '{package}{specifier}'")
    return Finding(package, OK, version)


def check_torch() -> list[Finding]:
    """Torch must be a version that nnU-Net allows, and torchvision must be built for it.

    A torchvision built for another torch imports halfway and fails later, inside nnU-Net's imports,
    with "operator torchvision::nms does not exist". So its compiled part is called here once.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("nnunetv2") or []
    except metadata.PackageNotFoundError:
        lines = []  # reported by check_requirements
    for requirement in (r for r in map(Requirement, lines) if r.name == "torch" and r.marker is None):
        allowed = check_requirement("torch", str(requirement.specifier))
        if allowed.level != OK:
            return [allowed]
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]]), torch.tensor([0.5, 0.9]), 0.5)
        assert kept.tolist() == [1]
    except Exception as error:  # whatever a broken build raises: RuntimeError, ImportError, OSError, AttributeError
        value = f"do not work together: {type(error).__name__}: {first_line(error)}"
        return [Finding("torch, torchvision", ERROR, value, SAME_BUILD)]
    return [Finding("torch, torchvision", OK, f"{torch.__version__} and {torchvision.__version__}, built to fit")]
