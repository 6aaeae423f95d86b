"""One scan through nnU-Net's preprocessor, with expert labels beside, all its files swapped in together."""

from __future__ import annotations

import contextlib
import glob
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.data.cases import Case
from nnunet_gmabs.data.expert import expert_file
from nnunet_gmabs.data.expert_build import write_expert
from nnunet_gmabs.data.record import gmabs_folder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, sha256, sync_folder

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class PreprocessJob:
    """What a worker needs to know to preprocess one scan for one configuration."""

    case: Case
    pre: Path
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]


class IgnoreOutsideMask:
    """Mixin for nnU-Net's preprocessors: ignore outside the nonzero mask becomes background, so that masks hold.

    nnU-Net normalises inside the mask that it finds as labels >= 0, and writes -1 outside only where the label is 0.
    An ignored voxel outside would therefore count as inside: brain mean and sd 0.88 and 0.26 instead of 0 and 1.
    The labels that training uses come from the expert file, where such a voxel stays unknown.
    """

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict[str, Any],
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ):
        """As nnU-Net's, with the labels changed where the configuration normalises inside a mask."""
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

        ignore_label = plans_manager.get_label_manager(dataset_json).ignore_label
        if seg is not None and ignore_label is not None and any(configuration_manager.use_mask_for_norm):
            seg = np.where((seg == ignore_label) & ~create_nonzero_mask(data), 0, seg)
        return super().run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)  # type: ignore[misc]


def preprocess_case(job: PreprocessJob) -> int:
    """Make all files of one scan in a staging folder, then swap them in; size of the image file (in a worker).

    nnU-Net's data folder tolerates no foreign file, not even for a moment, so files are made beside it. A training
    that runs meanwhile sees the old or the new file of each kind; as long as the image stays the same, any mixture
    fits together.

    Raises:
        InputError: if a file cannot be written completely.
    """
    data_identifier = job.configuration_manager.data_identifier
    identifier = job.case.identifier
    staging = staging_folder(job.pre, data_identifier) / identifier
    _make_anyway(staging)
    try:
        staged = _make_files(job, staging)
        _swap_in(job, staged)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty while other workers are busy
            staging.parent.rmdir()
    return (job.pre / data_identifier / f"{identifier}.b2nd").stat().st_size


def staging_folder(pre: Path, data_identifier: str) -> Path:
    """Where files are made; left-overs of a killed run are removed by the next."""
    return gmabs_folder(pre, data_identifier) / "staging"


def remove_case(pre: Path, data_identifier: str, label_name: str, identifier: str) -> None:
    """Remove the files of a scan that is no longer in the raw data set; labels with the last data folder."""
    data = Path(pre) / data_identifier
    for path in (
        data / f"{identifier}.b2nd",
        data / f"{identifier}_seg.b2nd",
        data / f"{identifier}.pkl",
        expert_file(pre, data_identifier, identifier),
    ):
        path.unlink(missing_ok=True)
    if not list(Path(pre).glob(f"*/{glob.escape(identifier)}.pkl")):
        (Path(pre) / "gt_segmentations" / label_name).unlink(missing_ok=True)


def update_ground_truth(pre: Path, case: Case) -> None:
    """Bring nnU-Net's copy of a label file up to date."""
    copy = Path(pre) / "gt_segmentations" / case.label_file.name
    if not copy.is_file() or sha256(copy) != case.label_sha256:
        replace_atomically(copy, lambda temporary: shutil.copyfile(case.label_file, temporary))


def _make_anyway(folder: Path) -> None:
    """Make a folder whose parent another worker may remove at any moment, because it is empty."""
    while not folder.is_dir():
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)


def _make_files(job: PreprocessJob, staging: Path) -> dict[str, Path]:
    """The four files of a scan, by their endings."""
    managers = job.plans_manager, job.configuration_manager
    base = job.configuration_manager.preprocessor_class
    preprocessor = type(f"{base.__name__}WithSparseLabels", (IgnoreOutsideMask, base), {})(verbose=False)
    truncated = staging / job.case.identifier
    staged = {ending: Path(f"{truncated}{ending}") for ending in (".b2nd", "_seg.b2nd", ".pkl", "_expert.b2nd")}
    try:
        preprocessor.run_case_save(
            str(truncated),
            [str(p) for p in job.case.image_files],
            str(job.case.label_file),
            *managers,
            job.dataset_json,
        )
        with open(staged[".pkl"], "rb") as f:
            properties = pickle.load(f)
        write_expert(
            staged["_expert.b2nd"],
            job.case.label_file,
            properties,
            staged["_seg.b2nd"],
            *managers,
            job.plans_manager.get_label_manager(job.dataset_json).ignore_label,
        )
        _check_complete(staged)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # how blosc2 reports a full disk
        free_mb = shutil.disk_usage(staging).free >> 20
        raise InputError(
            f"{job.case.identifier}: preprocessing failed ({error}); {free_mb} MB are free in {job.pre}. "
            "Is the disk full?"
        ) from error
    return staged


def _check_complete(staged: dict[str, Path]) -> None:
    """Read everything back: blosc2 may not notice a disk that became full."""
    import blosc2

    shapes = []
    for ending in (".b2nd", "_seg.b2nd", "_expert.b2nd"):
        array = blosc2.open(urlpath=str(staged[ending]), mode="r", dparams={"nthreads": 1})
        array[...]
        shapes.append(tuple(array.shape[1:]))
    if len(set(shapes)) > 1:
        raise InputError(f"{staged['.b2nd'].stem}: image, labels and expert labels have shapes {shapes}")


def _swap_in(job: PreprocessJob, staged: dict[str, Path]) -> None:
    data_identifier = job.configuration_manager.data_identifier
    data = job.pre / data_identifier
    update_ground_truth(job.pre, job.case)
    for path in staged.values():
        with open(path, "rb") as f:
            os.fsync(f.fileno())
    for ending, path in staged.items():
        if ending != "_expert.b2nd":
            os.replace(path, data / path.name)
    os.replace(staged["_expert.b2nd"], expert_file(job.pre, data_identifier, job.case.identifier))
    sync_folder(data)
