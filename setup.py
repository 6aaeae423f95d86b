"""Packaging of nnunet_gmabs: metadata, and the start-up file through which nnU-Net finds our trainers.

nnU-Net looks for trainers in its own folders and in those that the environment variable
nnUNet_extTrainer names. So that `nnUNetv2_train ... -tr nnUNetTrainerSparse` works right after the
installation, a one-line start-up file (nnunet_gmabs.pth, run by Python's site module) appends our one
scanned folder to that variable. It is an ordinary installed file: uninstalling removes it. It is
written at build time, because setuptools offers no other way into the root of site-packages that
works for `pip install .` and for `pip install -e .`.
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
STARTUP_FILE = "nnunet_gmabs.pth"
SCANNED_FOLDER = "nnunet_gmabs/nnunet_ext"

# Lower bounds only, each with its reason.
REQUIREMENTS = [
    "nnunetv2>=2.8.1",  # the trainer hooks, the lookup in nnUNet_extTrainer and the file formats used here
    "batchgenerators>=0.25.5",  # before: label resizing wrote background where no class reached 0.5
    "batchgeneratorsv2>=0.3.6",  # before: the same in rotations, during augmentation
    "segment-anything",  # the generalist; brings no weights
    "torch",  # the range is nnU-Net's to say
    "torchvision",  # nnU-Net (through timm) and segment-anything import it; must belong to torch's build
    "numpy>=1.24",  # nnU-Net's own bound
    "scipy",  # distances and interpolation of label maps
    "scikit-learn",  # k-means, which spreads scans to ask for over what they look like; nnU-Net needs it as well
    "scikit-image",  # the random walker, the generalist without weights; nnU-Net needs it as well
    "safetensors",  # weights of the embedded generalist: a format that runs no code when it is read
    "SimpleITK>=2.2.1",  # geometry of scans and labels; nnU-Net's own bound
    "blosc2>=3.3.2",  # nnU-Net's preprocessed files, ours beside them; nnU-Net's own bound
    "jinja2",  # gmabs report: fills its page, and escapes names that users gave; torch needs it as well
    "matplotlib",  # gmabs_progress.png and the demo's pictures
    "tqdm",  # progress bars with remaining time
    "PyYAML",  # gmabs.yaml
    "packaging",  # gmabs doctor compares versions with these bounds
]
ANNOTATE = [
    "starlette",  # gmabs annotate: routes, bodies and static files of the painter's server
    "uvicorn",  # gmabs annotate: runs it
]
BENCHMARK = [
    "monai>=1.3",  # Hausdorff distance and surface Dice: the field's own, widely used implementation
]
EXTRAS = {
    "annotate": ANNOTATE,
    "benchmark": BENCHMARK,
    "test": [
        *ANNOTATE,
        *BENCHMARK,
        "selenium>=4.10",  # drives Chromium through the painter's page; finds a driver without extra packages
        "pytest>=7",  # tmp_path retention and strict markers
        "pytest-xdist>=3.7",  # two cores test in about half the time; from here on files keep their order
        "ruff>=0.9",  # the formatter's current style
        "mypy>=1.8",  # understands the typing used on Python 3.10 to 3.13
        "types-PyYAML",  # mypy's knowledge of yaml
        "cleanlab>=2.6",  # the reference for learning/confident.py, which the package itself does not use
        "setuptools>=70.1",  # the installation tests build without network; from here on it needs no wheel package
    ],
}


def version() -> str:
    """The version in nnunet_gmabs/__init__.py, read as text: importing would need the dependencies."""
    text = (ROOT / "nnunet_gmabs" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def startup_line(project: str | None = None) -> str:
    """The one line of code that Python runs when it starts in an environment with this package.

    It appends the scanned folder to nnUNet_extTrainer: after the user's own folders, not when it is
    already there (as in a child process), not when it does not exist. Only os and sys are used, both
    loaded anyway, so it costs some microseconds.

    Args:
        project: the source folder of an editable installation. None: the folder is looked for along
            sys.path, in the order in which `import nnunet_gmabs` would find it.
    """
    # ascii(): Python reads .pth files in the locale's encoding, so a path must not depend on it.
    folders = ascii([project]) if project else "sys.path"
    return (
        "import os, sys; "
        f"found = next(filter(os.path.isdir, map('{{}}/{SCANNED_FOLDER}'.format, {folders})), ''); "
        "value = os.environ.get('nnUNet_extTrainer', ''); "
        "found and found not in value.split(os.pathsep) and "
        "os.environ.update(nnUNet_extTrainer=os.pathsep.join(filter(None, (value, found))))\n"
    )


class BuildWithStartupFile(build_py):
    """Adds the start-up file to an ordinary wheel, beside the package."""

    def run(self):
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, STARTUP_FILE).write_text(startup_line(), encoding="ascii")

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, os.path.join(self.build_lib, STARTUP_FILE)]


class EditableWithStartupFile(editable_wheel):
    """Adds the start-up file to the wheel behind `pip install -e .`, which skips build_py's files."""

    def _run_build_commands(self, dist_name, unpacked_wheel, build_lib, tmp_dir):
        result = super()._run_build_commands(dist_name, unpacked_wheel, build_lib, tmp_dir)
        line = startup_line(os.path.abspath(self.project_dir))
        Path(unpacked_wheel, STARTUP_FILE).write_text(line, encoding="ascii")
        return result


if __name__ == "__main__":
    setup(
        name="nnunet_gmabs",
        version=version(),
        description="Training 3D medical segmentation models from almost no labels, inside nnU-Net v2",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        python_requires=">=3.10",
        # Says what is the default, but makes `pip install -e .` add this folder to sys.path, where setuptools would
        # otherwise install an import hook that slows the start of every Python program by 11 ms (9 ms without).
        package_dir={"": "."},
        packages=find_packages(include=["nnunet_gmabs", "nnunet_gmabs.*"]),
        package_data={
            "nnunet_gmabs": [
                "py.typed",
                "annotation/painter/page/*",
                "annotation/painter/page/js/*",
                "generalist/weights/*",
                "report/page/page.html",
            ]
        },
        install_requires=REQUIREMENTS,
        extras_require=EXTRAS,
        entry_points={"console_scripts": ["gmabs = nnunet_gmabs.cli:main"]},
        cmdclass={"build_py": BuildWithStartupFile, "editable_wheel": EditableWithStartupFile},
        classifiers=[
            "Intended Audience :: Science/Research",
            "Programming Language :: Python :: 3",
            "Topic :: Scientific/Engineering :: Medical Science Apps.",
        ],
    )
