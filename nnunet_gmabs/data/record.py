"""prepared.json: what `gmabs prepare` did to a folder of preprocessed scans, and whether a trainer may rely on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

FORMAT = 1
CPU_PLANS = "nnUNetPlansCPU"
FINGERPRINT_MARK = "gmabs_without_ignore_label"  # key in nnU-Net's dataset_fingerprint.json, which ignores it
# Normalisations of nnU-Net that look at one image alone; all others may use the fingerprint's intensities.
IMAGE_ONLY = {"ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"}


def gmabs_folder(pre: Path, data_identifier: str) -> Path:
    """The folder of our files beside nnU-Net's data folder, which tolerates no foreign files."""
    return Path(pre) / f"{data_identifier}_gmabs"


def record_file(pre: Path, data_identifier: str) -> Path:
    """Where the record of one data folder is."""
    return gmabs_folder(pre, data_identifier) / "prepared.json"


def read_record(pre: Path, data_identifier: str) -> dict[str, Any]:
    """The record of one data folder; empty when there is none that this version understands."""
    try:
        record = json.loads(record_file(pre, data_identifier).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("format") == FORMAT else {}


def all_records(pre: Path) -> list[dict[str, Any]]:
    """The records of all data folders of a data set."""
    names = sorted(path.parent.name for path in Path(pre).glob("*_gmabs/prepared.json"))
    return [record for name in names if (record := read_record(pre, name.removesuffix("_gmabs")))]


def preprocessing_key(plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> dict[str, Any]:
    """Everything in the plans that preprocessed scans depend on; equal keys give equal scans."""
    configuration = configuration_manager.configuration
    names = [
        "preprocessor_name",
        "spacing",
        "normalization_schemes",
        "use_mask_for_norm",
        "resampling_fn_data",
        "resampling_fn_data_kwargs",
        "resampling_fn_seg",
        "resampling_fn_seg_kwargs",
    ]
    key = {name: configuration.get(name) for name in names}
    key["transpose_forward"] = list(plans_manager.transpose_forward)
    key["image_reader_writer"] = plans_manager.plans["image_reader_writer"]
    if uses_fingerprint_intensities(configuration_manager):
        key["intensities"] = plans_manager.foreground_intensity_properties_per_channel
    return json.loads(json.dumps(key))  # as it will be read back


def uses_fingerprint_intensities(configuration_manager: ConfigurationManager) -> bool:
    """Whether normalisation depends on the intensities of labelled voxels (CT)."""
    return not set(configuration_manager.normalization_schemes) <= IMAGE_ONLY


def require_prepared_where_it_matters(
    pre: Path,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> None:
    """Refuse scans whose intensities stock nnU-Net normalised wrongly because of the ignore label.

    Stock nnU-Net takes ignored voxels for foreground in the intensities that CT is normalised with, and for inside of
    the nonzero mask where that is used. Where neither applies, any preprocessed data will do.

    Raises:
        InputError: if it matters here and `gmabs prepare` did not make the data as they are now.
    """
    if plans_manager.get_label_manager(dataset_json).ignore_label is None:
        return
    by_fingerprint = uses_fingerprint_intensities(configuration_manager)
    by_mask = any(configuration_manager.use_mask_for_norm)
    if not (by_fingerprint or by_mask):
        return
    data_identifier = configuration_manager.data_identifier
    record = read_record(pre, data_identifier)
    fine = (
        (record.get("fingerprint_without_ignore") or not by_fingerprint)
        and (record.get("masked_normalisation") or not by_mask)
        and record.get("preprocessing") == preprocessing_key(plans_manager, configuration_manager)
        and all(is_ours(pre, data_identifier, i, case) for i, case in record["cases"].items())
        and {path.stem for path in (Path(pre) / data_identifier).glob("*.pkl")} <= set(record["cases"])
    )
    if not fine:
        reason = "CT intensities" if by_fingerprint else "the nonzero mask"
        raise InputError(
            f"{Path(pre) / data_identifier}: preprocessed by stock nnU-Net, which takes ignored voxels into account "
            f"when it normalises by {reason}. Run `gmabs prepare -p {plans_manager.plans_name}`"
            f"{' --replan' if by_fingerprint and not record.get('fingerprint_without_ignore') else ''} first."
        )


def is_ours(pre: Path, data_identifier: str, identifier: str, case: dict[str, Any]) -> bool:
    """Whether the preprocessed image is the one that the record tells of (by its size, which survives copying)."""
    try:
        return (Path(pre) / data_identifier / f"{identifier}.b2nd").stat().st_size == case["data_bytes"]
    except FileNotFoundError:
        return False
