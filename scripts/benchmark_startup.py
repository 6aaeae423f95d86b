"""How much an installed nnunet_gmabs slows the start of every other Python program in its environment.

Makes an environment of its own, installs nothing but the files that Python runs when it starts, and
times `python -c pass` in turn with and without them, so that a busy machine hits both alike.

    python scripts/benchmark_startup.py            # 300 pairs for each kind of installation, about 1 minute
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def startup_files(folder: Path, editable: bool) -> list[Path]:
    """Build a wheel, and unpack from it what the site module of an environment would read at start-up."""
    project = folder / "project"
    shutil.copytree(ROOT / "nnunet_gmabs", project / "nnunet_gmabs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    hook = "build_editable" if editable else "build_wheel"
    code = f"import setuptools.build_meta as backend; backend.{hook}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if "/" not in name or (not editable and "nnunet_ext" in name)]
        wheel.extractall(folder / "unpacked", names)
    return list((folder / "unpacked").iterdir())


def seconds(python: Path, environment: dict[str, str]) -> float:
    """Wall time of one start of Python that does nothing."""
    start = time.perf_counter()
    subprocess.run([python, "-c", "pass"], env=environment, check=True)
    return time.perf_counter() - start


def measure(editable: bool, pairs: int) -> list[tuple[float, float]]:
    """Pairs of (without, with) start-up times in seconds, their order within a pair drawn at random."""
    order = random.Random(0)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "nnUNet"))}
    with tempfile.TemporaryDirectory() as temporary:
        pythons = {}
        for name in ("without", "with"):
            venv.create(Path(temporary, name), with_pip=False)
            pythons[name] = Path(temporary, name, "bin", "python")
        query = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([pythons["with"], "-c", query], capture_output=True, text=True, check=True).stdout.strip()
        (build := Path(temporary, "build")).mkdir()
        for path in startup_files(build, editable):
            shutil.move(path, site)
        times = []
        for _ in range(pairs + 5):
            names = order.sample(["without", "with"], 2)
            taken = {name: seconds(pythons[name], environment) for name in names}
            times.append((taken["without"], taken["with"]))
    return times[5:]  # the first ones warm the disk cache and write .pyc files


def main() -> None:
    """Print one line for each kind of installation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300)
    pairs = parser.parse_args().pairs
    for editable, command in ((False, "pip install ."), (True, "pip install -e .")):
        times = measure(editable, pairs)
        differences = sorted(1000 * (after - before) for before, after in times)
        draws = random.Random(1)
        medians = sorted(statistics.median(draws.choices(differences, k=pairs)) for _ in range(1000))
        print(
            f"{command:18}without {1000 * statistics.median(t[0] for t in times):6.2f} ms, "
            f"with {1000 * statistics.median(t[1] for t in times):6.2f} ms, "
            f"difference {statistics.median(differences):+.2f} ms (median of {pairs} pairs, "
            f"90 % interval {medians[50]:+.2f} to {medians[949]:+.2f})"
        )


if __name__ == "__main__":
    main()
