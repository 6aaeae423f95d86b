"""After labels in labelsTr changed: nnU-Net's copies of them and the expert files follow, safe beside a training.

`gmabs prepare` does this too, and more (nnU-Net's own preprocessed labels, splits), but takes longer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.data.cases import Case, preprocessed_folder
from nnunet_gmabs.data.expert import ensure_expert_labels
from nnunet_gmabs.data.planning import load_plans
from nnunet_gmabs.data.preprocess import update_ground_truth
from nnunet_gmabs.data.record import all_records
from nnunet_gmabs.files import sha256


def follow_labels(raw: RawFolder, identifiers: Sequence[str]) -> list[str]:
    """Bring gt_segmentations and the expert files of these scans up to date, in every prepared folder.

    A scan that is not preprocessed, or has no label file, is left to `gmabs prepare`; so is a data set whose
    dataset.json changed since it was prepared.

    Args:
        raw: the data set.
        identifiers: scans whose label file may have changed.

    Returns:
        The data identifiers of the folders that are up to date now with respect to these scans; those of which
        something is left to `gmabs prepare` are missing.

    Raises:
        InputError: if labels do not fit a preprocessed scan.
    """
    pre = preprocessed_folder(raw.folder)
    records = all_records(pre)
    if not records or _labels_in(pre / "dataset.json") != raw.labels:
        return []
    there = [i for i in identifiers if raw.label_path(i).is_file()]
    for identifier in there:
        if any(identifier in record["cases"] for record in records):
            path = raw.label_path(identifier)
            update_ground_truth(pre, Case(identifier, (), path, sha256(path), made=False))
    followed = []
    for record in records:
        plans_manager = load_plans(pre, record["plans"])
        configuration = plans_manager.get_configuration(record["configuration"])
        known = [identifier for identifier in there if identifier in record["cases"]]
        ensure_expert_labels(pre, plans_manager, configuration, raw.dataset_json, known)
        if len(known) == len(identifiers):
            followed.append(configuration.data_identifier)
    return followed


def _labels_in(dataset_json: Path) -> dict | None:
    try:
        return json.loads(dataset_json.read_text(encoding="utf-8"))["labels"]
    except FileNotFoundError:
        return None
