"""nnU-Net's fingerprint of a data set, without the ignore label.

Stock nnU-Net takes every voxel above 0 for foreground, the ignore label included. Six synthetic CT scans, organ at
110 HU: densely labelled they give mean 109.6 and clip [70, 148]; with three planes labelled -410 and [-1000, 126].
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data.cases import Case, reader_writer_class
from nnunet_gmabs.data.record import FINGERPRINT_MARK
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

TEMPORARY = "gmabs_fingerprint_"
# Intensities that nnU-Net draws, with replacement, over all scans. Its own 1e8 would be drawn from a few thousand
# labelled voxels, and takes seconds and gigabytes where there are few scans.
DRAWS = 1e7


def fingerprint_file(pre: Path) -> Path:
    """Where nnU-Net keeps the fingerprint of a data set."""
    return Path(pre) / "dataset_fingerprint.json"


def is_without_ignore(pre: Path) -> bool:
    """Whether the fingerprint there was made by extract_fingerprint().

    Raises:
        InputError: if it cannot be read.
    """
    path = fingerprint_file(pre)
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get(FINGERPRINT_MARK))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not usable ({error}); use --replan, which makes it again") from error


def intensities(pre: Path) -> dict[str, Any]:
    """Of foreground, by channel, as nnU-Net's planners copy them into plans; the fingerprint must exist."""
    return json.loads(fingerprint_file(pre).read_text(encoding="utf-8"))["foreground_intensity_properties_per_channel"]


def extract_fingerprint(pre: Path, raw: RawFolder, cases: Sequence[Case], workers: Workers) -> None:
    """Make nnU-Net's dataset_fingerprint.json from labels in which ignore has become background.

    nnU-Net hard-codes the function that looks at a scan, and runs it in new processes, so only the label files that
    it is given can differ: temporary copies beside the result.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    for left_over in Path(pre).glob(f"{TEMPORARY}*"):  # of a killed run
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=pre, prefix=TEMPORARY) as folder:
        copies = {}
        if raw.ignore_label is not None:
            reader_writer = reader_writer_class(raw, cases)
            jobs = [_Job(case, Path(folder) / case.label_file.name, raw.ignore_label, reader_writer) for case in cases]
            for job, _ in workers.map(_copy_without_ignore, jobs, "Copying labels without ignore"):
                copies[job.case.identifier] = str(job.copy)

        class Extractor(DatasetFingerprintExtractor):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                for identifier, copy in copies.items():
                    self.dataset[identifier]["label"] = copy
                if copies:
                    self.num_foreground_voxels_for_intensitystats = DRAWS

        Extractor(Path(pre).name, workers.processes).run(overwrite_existing=True)
    path = fingerprint_file(pre)
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {FINGERPRINT_MARK: True})


@dataclass(frozen=True)
class _Job:
    case: Case
    copy: Path
    ignore_label: int
    reader_writer: type


def _copy_without_ignore(job: _Job) -> None:
    reader_writer = job.reader_writer()
    labels, properties = reader_writer.read_seg(str(job.case.label_file))
    labels[labels == job.ignore_label] = 0
    reader_writer.write_seg(labels[0], str(job.copy), properties)
