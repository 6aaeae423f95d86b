"""Whether model, data set and labels that are there already fit each other, before relabelling or embedding begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.data.expert import read_expert
from nnunet_gmabs.data.record import preprocessing_key, require_prepared_where_it_matters
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256, write_json
from nnunet_gmabs.presets import GM_ABS
from nnunet_gmabs.settings import resolve

if TYPE_CHECKING:
    from nnunet_gmabs.commands.model import Model
    from nnunet_gmabs.generalist.relabel import Relabeller

RECORD = "gmabs_relabel.json"
NO_MATTER = {"cache_gib", "slices_at_once", "accept_hours"}  # settings that change no label


def relabelling_settings(pre: Path, say: Callable[[str], object]) -> GMABSConfig:
    """GM-ABS's settings as gmabs.yaml and the file in nnUNet_gmabs_config change them; what they change is told.

    Raises:
        InputError: they leave out relabelling or the generalist.
    """
    config, notes = resolve(GM_ABS, pre)
    for note in notes:
        say(note)
    if config.relabel is None or config.generalist is None:
        name = "relabel" if config.relabel is None else "generalist"
        raise InputError(
            f"the setting {name} is null in {pre / 'gmabs.yaml'} or in the file that nnUNet_gmabs_config names; "
            "take that line out for this command"
        )
    return config


def prepared_dataset_json(pre: Path) -> dict[str, Any]:
    """Of the preprocessed data set; InputError where there is none."""
    path = pre / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path}: not there; run gmabs prepare")
    return json.loads(path.read_text(encoding="utf-8"))


def matching_dataset_json(pre: Path, model: Model) -> dict[str, Any]:
    """Of the preprocessed data set, whose classes must be those of the model."""
    path = pre / "dataset.json"
    dataset_json = prepared_dataset_json(pre)
    known, here = (
        {k: v for k, v in labels.items() if k != "ignore"} for labels in (model.labels, dataset_json["labels"])
    )
    if known != here:
        raise InputError(
            f"{model.folder}: knows the labels {known}, but {path} has {here}; name a model of this data set"
        )
    if model.has_regions:
        raise InputError(
            f"{model.folder}: was trained on regions, which may overlap; a generalist is asked for classes"
        )
    if "ignore" not in dataset_json["labels"]:
        raise InputError(f"{path}: has no ignore label, so that every scan is labelled everywhere; nothing to relabel")
    return dataset_json


def check_scans(pre: Path, plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]) -> None:
    """Raise InputError unless the scans were preprocessed as the model wants them."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    name = plans_manager.plans_name
    if configuration.previous_stage_name is not None:
        raise InputError("a cascade needs predictions of its first stage; use a model of 2d, 3d_lowres or 3d_fullres")
    plans_file = pre / f"{name}.json"
    if not (pre / configuration.data_identifier).is_dir() or not plans_file.is_file():
        raise InputError(f"{pre / configuration.data_identifier}: no preprocessed scans; run gmabs prepare -p {name}")
    present = PlansManager(str(plans_file))
    same = [
        c
        for c in present.available_configurations
        if present.get_configuration(c).data_identifier == configuration.data_identifier
    ]
    key = preprocessing_key(plans_manager, configuration)
    if not any(preprocessing_key(present, present.get_configuration(c)) == key for c in same):
        raise InputError(f"{plans_file}: the model was trained with other plans; its scans would look different to it")
    require_prepared_where_it_matters(pre, plans_manager, configuration, dataset_json)


def made_from(model: Model, config: GMABSConfig, relabeller: Relabeller) -> dict[str, Any]:
    """All that decides the labels, as JSON returns it."""
    assert config.generalist is not None and config.relabel is not None and relabeller.generalist is not None
    expert = hashlib.sha256()
    for identifier in relabeller.scans.labelled:
        expert.update(
            f"{identifier} {read_expert(relabeller.scans.expert_file(identifier))[1]['source_sha256']}\n".encode()
        )
    generalist = {name: value for name, value in asdict(config.generalist).items() if name not in NO_MATTER}
    decides = {
        "checkpoint": sha256(model.folder / f"fold_{model.folds[0]}" / model.checkpoint),
        "generalist": generalist | {"weights": relabeller.generalist.weights_hash},
        "relabel": asdict(config.relabel),
        "seed": config.seed,
        "expert labels": expert.hexdigest(),
    }
    return json.loads(json.dumps(decides))


def refuse_other_labels(output: Path, made_from: dict[str, Any]) -> None:
    """Raise InputError where the folder holds labels that were made from something else; else note from what."""
    path = output / RECORD
    if not path.is_file():
        write_json(path, made_from)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    other = sorted(name for name in made_from if stored.get(name) != made_from[name])
    if other:
        raise InputError(
            f"{output}: has labels made with another {other[0]}; name another folder with -o, or remove it"
        )
