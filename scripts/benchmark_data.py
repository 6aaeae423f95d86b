"""The data sets of a benchmark: barely labelled copies, and their preparation (see scripts/benchmark.py)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_grid import ALL_DENSE, Cell, Grid

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

FIRST_ID = 600


class Data:
    """Data sets in WORK/raw and WORK/preprocessed, one for each kind of labels and seed.

    Args:
        grid: the benchmark's.
        source: the dense data set.
        work: folder for everything.
        command: (log's name, program, *arguments, **variables) runs a program in WORK's nnU-Net folders.
    """

    def __init__(self, grid: Grid, source: Path, work: Path, command: Callable[..., object]) -> None:
        self.grid, self.source, self.work, self.command = grid, source, work, command
        self.plans = "nnUNetPlansCPU" if grid.plans else "nnUNetPlans"

    def make(self, labels: str, seed: int) -> None:
        """Make and prepare the data set with these labels, unless it is there."""
        first = next(iter(self.grid.labels))
        self.make_sparse(first if labels == ALL_DENSE else labels, seed)
        if labels == ALL_DENSE:
            self.make_dense(seed, first)

    @cached_property
    def dense(self) -> Path:
        """The dense data set, on the grid's spacing."""
        target = self.work / "dense" / self.source.name
        if self.grid.spacing_mm is None:
            return self.source
        if not (target / "dataset.json").is_file():
            for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                for path in sorted((self.source / folder).glob("*")):
                    (target / folder).mkdir(parents=True, exist_ok=True)
                    resample(path, target / folder / path.name, self.grid.spacing_mm, folder.startswith("labels"))
            shutil.copy(self.source / "dataset.json", target)
        return target

    def name(self, labels: str, seed: int) -> str:
        """Name of the data set with these labels."""
        number = [*self.grid.labels, ALL_DENSE].index(labels)
        return f"Dataset{FIRST_ID + 10 * number + seed:03d}_{self.source.name.split('_', 1)[1]}"

    def make_sparse(self, labels: str, seed: int) -> None:
        """Barely labelled copy and its preparation, unless there; splits: train on all labelled scans."""
        what, name = self.grid.labels[labels], self.name(labels, seed)
        raw, preprocessed = self.work / "raw" / name, self.work / "preprocessed" / name
        planes = None if what.planes == "all" else what.planes
        if raw.is_dir() and (preprocessed / "splits_final.json").is_file():
            made = self.record(labels, seed)
            wanted = {"scans": what.scans, "planes": planes, "position": what.position, "test": self.grid.test_scans}
            if {key: made[key] for key in wanted} != wanted:
                raise InputError(f"{raw} was made for other labels; remove it, or choose another --work")
            return
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(preprocessed, ignore_errors=True)
        options = ["--scans", what.scans, "--planes", what.planes, "--seed", seed, "--test", self.grid.test_scans]
        options += ["--position", what.position]
        self.command(f"data_{name}", "gmabs", "sparsify", self.dense, name, *options)
        small = ["--cpu", "--cpu-seconds", self.grid.plans["cpu_seconds"]] if self.grid.plans else []
        # nnU-Net's planner refuses nnUNet_n_proc_DA=0
        prepare = ["prepare", "-d", name, "-c", "3d_fullres", *small, "-np", 2]
        self.command(f"data_{name}", "gmabs", *prepare, nnUNet_n_proc_DA="1")
        if self.grid.plans and "batch_size" in self.grid.plans:
            plans = json.loads((preprocessed / f"{self.plans}.json").read_text())
            plans["configurations"]["3d_fullres"]["batch_size"] = self.grid.plans["batch_size"]
            write_json(preprocessed / f"{self.plans}.json", plans)
        labelled = sorted(self.record(labels, seed)["planes_kept"])
        write_json(preprocessed / "splits_final.json", [{"train": labelled, "val": labelled[:1]}])

    def make_dense(self, seed: int, like: str) -> None:
        """The same training scans with all labels, preprocessed with the same plans."""
        first, other = self.name(like, seed), self.name(ALL_DENSE, seed)
        raw, preprocessed = (self.work / folder / other for folder in ("raw", "preprocessed"))
        if (preprocessed / "splits_final.json").is_file():
            return
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(preprocessed, ignore_errors=True)
        shutil.copytree(self.work / "raw" / first / "imagesTr", raw / "imagesTr", copy_function=os.link)
        shutil.copytree(self.work / "raw" / first / "labelsTr_dense", raw / "labelsTr")
        content = json.loads((self.work / "raw" / first / "dataset.json").read_text())
        content["labels"].pop("ignore")
        preprocessed.mkdir(parents=True)
        for folder in (raw, preprocessed):
            write_json(folder / "dataset.json", content)
        model = self.work / "preprocessed" / first
        plans = json.loads((model / f"{self.plans}.json").read_text())
        write_json(preprocessed / f"{self.plans}.json", {**plans, "dataset_name": other})
        shutil.copy(model / "dataset_fingerprint.json", preprocessed)
        options = ["-plans_name", self.plans, "-c", "3d_fullres", "-np", 2]
        self.command(f"data_{other}", "nnUNetv2_preprocess", "-d", int(other[7:10]), *options)
        names = sorted(p.name.removesuffix(content["file_ending"]) for p in (raw / "labelsTr").iterdir())
        write_json(preprocessed / "splits_final.json", [{"train": names, "val": names[:1]}])

    def record(self, labels: str, seed: int) -> dict[str, Any]:
        """What `gmabs sparsify` kept."""
        path = self.work / "raw" / self.name(labels, seed) / "gmabs" / "sparsify.json"
        return json.loads(path.read_text())

    def judged(self, cell: Cell) -> tuple[Path, Path]:
        """Folders of the scans on which a cell is judged: images and dense labels."""
        labels = next(iter(self.grid.labels)) if cell.labels == ALL_DENSE else cell.labels
        raw = self.work / "raw" / self.name(labels, cell.seed)
        if not self.grid.judge_unlabelled:
            return raw / "imagesTs", raw / "labelsTs"
        images, truth = raw / "judged" / "images", raw / "judged" / "labels"
        if not truth.is_dir():
            ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
            dense = {p.name.removesuffix(ending) for p in (raw / "labelsTr_dense").iterdir()}
            unlabelled = sorted(dense - set(self.record(labels, cell.seed)["planes_kept"]))
            images.mkdir(parents=True, exist_ok=True)
            truth.mkdir()
            for scan in np.random.default_rng(0).permutation(unlabelled)[: self.grid.judge_unlabelled]:
                os.link(raw / "labelsTr_dense" / f"{scan}{ending}", truth / f"{scan}{ending}")
                for path in (raw / "imagesTr").glob(f"{scan}_????{ending}"):
                    os.link(path, images / path.name)
        return images, truth


def resample(source: Path, target: Path, spacing_mm: list[float], is_labels: bool) -> None:
    """An image or label file on another spacing, with nnU-Net's own interpolation; the outer edges stay."""
    import SimpleITK as sitk
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    old = sitk.ReadImage(str(source))
    array, spacing = sitk.GetArrayFromImage(old), np.array(old.GetSpacing()[::-1])
    shape = np.maximum(np.round(np.multiply(array.shape, spacing) / spacing_mm), 1).astype(int)
    order = 1 if is_labels else 3
    data = resample_data_or_seg_to_shape(array[None].astype(float), shape, spacing, spacing_mm, is_labels, order)[0]
    new = sitk.GetImageFromArray(data.astype(array.dtype if is_labels else np.float32))
    exact = spacing * array.shape / shape
    moved = np.array(old.GetDirection()).reshape(3, 3) @ (0.5 * (exact - spacing)[::-1])
    new.SetSpacing(exact[::-1].tolist())
    new.SetDirection(old.GetDirection())
    new.SetOrigin((np.array(old.GetOrigin()) + moved).tolist())
    sitk.WriteImage(new, str(target), True)
