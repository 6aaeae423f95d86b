"""The data sets of a benchmark: barely labelled copies, and their preparation (see scripts/benchmark.py)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_grid import ALL_DENSE, Cell, Grid

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

FIRST_ID = 600
MADE_FOR = "benchmark.json"  # in a raw data set: for what it was made
NOT_MADE = ("judge_unlabelled", "nsd_tolerance_mm")  # how a training is judged, not what it sees


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
        if self.grid.spacing_mm is None:
            return self.source
        target = self.work / "dense" / "x".join(map(str, self.grid.spacing_mm)) / self.source.name
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

    def begin(self, labels: str, seed: int) -> tuple[Path, Path, dict[str, Any]] | None:
        """Empty places for a data set, raw and preprocessed, and what it is made for; None where it is there.

        What a data set was made for is written into it last (MADE_FOR), so that one that is not whole is made again.

        Raises:
            InputError: if another one is there.
        """
        name = self.name(labels, seed)
        raw, preprocessed = self.work / "raw" / name, self.work / "preprocessed" / name
        wanted = {"labels": labels, "seed": seed, **self.grid.data(labels)}
        wanted = {key: value for key, value in wanted.items() if key not in NOT_MADE}
        if (raw / MADE_FOR).is_file():
            made = json.loads((raw / MADE_FOR).read_text())
            for key in wanted:
                if made.get(key) != wanted[key]:
                    raise InputError(
                        f"{raw} was made for {key} {made.get(key)}, wanted is {wanted[key]}; "
                        f"remove it and {preprocessed}, or choose another --work"
                    )
            return None
        for folder in (raw, preprocessed):
            shutil.rmtree(folder, ignore_errors=True)
        return raw, preprocessed, wanted

    def make_sparse(self, labels: str, seed: int) -> None:
        """Barely labelled copy and its preparation, unless there; splits: train on all labelled scans."""
        places = self.begin(labels, seed)
        if places is None:
            return
        what, (raw, preprocessed, made_for) = self.grid.labels[labels], places
        name = raw.name
        options = ["--scans", what.scans, "--planes", what.planes, "--seed", seed, "--test", self.grid.test_scans]
        options += ["--position", what.position]
        self.command(f"data_{name}", "gmabs", "sparsify", self.dense, name, *options)
        leave_out_what_has_no_truth(RawFolder(raw))
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
        write_json(raw / MADE_FOR, made_for)

    def make_dense(self, seed: int, like: str) -> None:
        """The same training scans with all labels, preprocessed with the same plans."""
        places = self.begin(ALL_DENSE, seed)
        if places is None:
            return
        raw, preprocessed, made_for = places
        first, other = self.name(like, seed), raw.name
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
        write_json(raw / MADE_FOR, made_for)

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
        images, truth = (raw / f"judged_{self.grid.judge_unlabelled}" / kind for kind in ("images", "labels"))
        ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
        dense = {p.name.removesuffix(ending) for p in (raw / "labelsTr_dense").iterdir()}
        unlabelled = sorted(dense - set(self.record(labels, cell.seed)["planes_kept"]))
        for scan in np.random.default_rng(0).permutation(unlabelled)[: self.grid.judge_unlabelled]:
            link(raw / "labelsTr_dense" / f"{scan}{ending}", truth)
            for path in (raw / "imagesTr").glob(f"{scan}_????{ending}"):
                link(path, images)
        return images, truth


def leave_out_what_has_no_truth(raw: RawFolder) -> None:
    """Remove test images without dense labels, as those of the Decathlon: nothing can be judged on them."""
    for scan in raw.scans("imagesTs"):
        if not raw.label_path(scan, "labelsTs").is_file():
            for path in raw.images_of(scan, "imagesTs"):
                path.unlink()


def link(file: Path, folder: Path) -> None:
    """A hard link of the same name in a folder, unless it is there; jobs side by side may do the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.link(file, folder / file.name)


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
