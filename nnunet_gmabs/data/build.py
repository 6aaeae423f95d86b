"""A folder of preprocessed scans brought up to date: only changed scans are rebuilt, safe beside a running training."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs import __version__
from nnunet_gmabs.data.cases import Case
from nnunet_gmabs.data.expert import ensure_expert_labels
from nnunet_gmabs.data.preprocess import (
    PreprocessJob,
    preprocess_case,
    remove_case,
    staging_folder,
    update_ground_truth,
)
from nnunet_gmabs.data.record import FORMAT, gmabs_folder, is_ours, preprocessing_key, read_record, record_file
from nnunet_gmabs.data.verify import Facts
from nnunet_gmabs.data.workers import Workers
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, write_json
from nnunet_gmabs.wording import count

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

SECONDS_BETWEEN_RECORDS = 2.0


@dataclass
class Built:
    """What was done to one data folder: identifiers of scans."""

    built: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.built and not self.removed:
            return f"nothing to do, {count(len(self.kept), 'scan is', 'scans are')} up to date"
        removed = f", {len(self.removed)} removed ({', '.join(self.removed)})" if self.removed else ""
        return f"{len(self.built)} built, {len(self.kept)} kept{removed}"


class DataFolder:
    """The preprocessed scans of one configuration.

    Args:
        pre: nnUNet_preprocessed/DatasetXXX_Name.
        plans_manager: its plans.
        configuration: name of the configuration in them.

    Raises:
        InputError: if the plans hold no such configuration, or it is a cascade.
    """

    def __init__(self, pre: Path, plans_manager: PlansManager, configuration: str) -> None:
        if configuration not in plans_manager.available_configurations:
            raise InputError(
                f"-c {configuration}: not in {pre / plans_manager.plans_name}.json, which has "
                f"{', '.join(plans_manager.available_configurations)}"
            )
        self.pre = pre
        self.plans_manager = plans_manager
        self.configuration = configuration
        self.configuration_manager: ConfigurationManager = plans_manager.get_configuration(configuration)
        if self.configuration_manager.previous_stage_name is not None:
            raise InputError(f"-c {configuration}: cascades are not supported; choose 3d_fullres, 3d_lowres or 2d")
        self.data_identifier: str = self.configuration_manager.data_identifier
        self.key = preprocessing_key(plans_manager, self.configuration_manager)

    @property
    def path(self) -> Path:
        """Where nnU-Net's files are."""
        return self.pre / self.data_identifier

    def check_foreign_files(self) -> None:
        """Raise InputError if files of an old nnU-Net are there, which would stop every trainer."""
        foreign = [path for path in self.path.glob("*") if path.suffix not in (".b2nd", ".pkl")]
        if foreign:
            raise InputError(
                f"{foreign[0]}: nnU-Net tolerates only .b2nd and .pkl files there; move it away, or remove the "
                "folder if an old nnU-Net made it"
            )

    def update(
        self,
        cases: Sequence[Case],
        facts: dict[str, Facts],
        dataset_json: dict[str, Any],
        fingerprint_without_ignore: bool,
        workers: Workers,
        rollback: Rollback,
    ) -> Built:
        """Rebuild what changed, remove what is gone, and record it in prepared.json as it goes; after make_folders.

        Args:
            cases: all scans of the raw data set.
            facts: what verification found about them.
            dataset_json: of the raw data set.
            fingerprint_without_ignore: whether the fingerprint leaves the ignore label out.
            workers: preprocess.
            rollback: forgets what it remembers as soon as one scan is built, which needs the files as they are then.
        """
        labels = dataset_json["labels"]
        head = {
            "format": FORMAT,
            "versions": {"nnunet_gmabs": __version__, "nnunetv2": version("nnunetv2")},
            "plans": self.plans_manager.plans_name,
            "configuration": self.configuration,
            "preprocessing": self.key,
            "labels": labels,
            "fingerprint_without_ignore": fingerprint_without_ignore,
            "masked_normalisation": True,
        }
        record = read_record(self.pre, self.data_identifier)
        same = record.get("preprocessing") == self.key and record.get("labels") == labels
        entries: dict[str, Any] = {}
        for case in cases:
            entry = record["cases"].get(case.identifier) if same else None
            if entry and self._is_current(case, facts[case.identifier], entry):
                entries[case.identifier] = asdict(facts[case.identifier]) | {"data_bytes": entry["data_bytes"]}
        outdated = [case for case in cases if case.identifier not in entries]
        rollback.remember(record_file(self.pre, self.data_identifier))
        result = Built([case.identifier for case in outdated], list(entries), self._gone(cases, record))
        recorder = _Recorder(self, head | {"splits_sha256": record.get("splits_sha256")}, entries)
        if recorder.record() != record:
            recorder.save()  # before the files change: a killed run must not leave a record that says too much
        for identifier in result.removed:
            rollback.forget()
            remove_case(self.pre, self.data_identifier, identifier + dataset_json["file_ending"], identifier)
        jobs = [
            PreprocessJob(case, self.pre, self.plans_manager, self.configuration_manager, dataset_json)
            for case in outdated
        ]
        try:
            for job, data_bytes in workers.map(preprocess_case, jobs, f"Preprocessing for {self.configuration}"):
                rollback.forget()
                recorder.add(job.case.identifier, asdict(facts[job.case.identifier]) | {"data_bytes": data_bytes})
        finally:
            recorder.save_if_changed()
        self._repair(cases, dataset_json, result.kept)
        return result

    def outdated_by_plans(self) -> bool:
        """Whether scans are there that were preprocessed by other plans, so that all will be rebuilt."""
        record = read_record(self.pre, self.data_identifier)
        return bool(record) and record["preprocessing"] != self.key

    def _repair(self, cases: Sequence[Case], dataset_json: dict[str, Any], kept: list[str]) -> None:
        for case in cases:
            update_ground_truth(self.pre, case)
        ensure_expert_labels(self.pre, self.plans_manager, self.configuration_manager, dataset_json, kept)

    def _is_current(self, case: Case, facts: Facts, entry: dict[str, Any]) -> bool:
        files = [self.path / f"{case.identifier}{ending}" for ending in ("_seg.b2nd", ".pkl")]
        return (
            entry["image_hash"] == facts.image_hash
            and entry["label_sha256"] == facts.label_sha256
            and is_ours(self.pre, self.data_identifier, case.identifier, entry)
            and all(path.is_file() for path in files)
        )

    def _gone(self, cases: Sequence[Case], record: dict[str, Any]) -> list[str]:
        there = {path.stem for path in self.path.glob("*.pkl")} | set(record.get("cases", {}))
        return sorted(there - {case.identifier for case in cases})

    def make_folders(self, rollback: Rollback) -> None:
        """Make the folders that files are swapped into, and remove what a killed run left behind."""
        for folder in (gmabs_folder(self.pre, self.data_identifier), self.path, self.pre / "gt_segmentations"):
            rollback.make_folder(folder)
        shutil.rmtree(staging_folder(self.pre, self.data_identifier), ignore_errors=True)


def outdated_folders(pre: Path, cases: Sequence[Case], done: Iterable[str]) -> list[str]:
    """Data folders prepared earlier, but not now, that hold other scans or labels, each with its cure."""
    labels = {case.identifier: case.label_sha256 for case in cases}
    found = []
    for path in sorted(pre.glob("*_gmabs/prepared.json")):
        data_identifier = path.parent.name.removesuffix("_gmabs")
        record = read_record(pre, data_identifier)
        if record and data_identifier not in done:
            if {name: entry["label_sha256"] for name, entry in record["cases"].items()} != labels:
                cure = f"gmabs prepare -c {record['configuration']} -p {record['plans']}"
                found.append(f"{data_identifier}; run `{cure}`")
    return found


class _Recorder:
    """Writes prepared.json while scans are being built, at most every two seconds."""

    def __init__(self, folder: DataFolder, head: dict[str, Any], entries: dict[str, Any]) -> None:
        self.path = record_file(folder.pre, folder.data_identifier)
        self.head = head
        self.entries = dict(entries)
        self.changed = False
        self.saved = time.monotonic()

    def record(self) -> dict[str, Any]:
        return self.head | {"cases": dict(sorted(self.entries.items()))}

    def add(self, identifier: str, entry: dict[str, Any]) -> None:
        self.entries[identifier] = entry
        self.changed = True
        if time.monotonic() - self.saved > SECONDS_BETWEEN_RECORDS:
            self.save()

    def save_if_changed(self) -> None:
        if self.changed:
            self.save()

    def save(self) -> None:
        write_json(self.path, self.record())
        self.changed, self.saved = False, time.monotonic()
