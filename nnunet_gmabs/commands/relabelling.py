"""One round of relabelling with a finished model: on the training grid, and from there to label files."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.annotation.raw_folder import find_raw_folder
from nnunet_gmabs.config import GM_ABS, GMABSConfig
from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.data.cases import preprocessed_folder
from nnunet_gmabs.data.expert import (
    ensure_expert_labels,
    labelled_identifiers,
    read_expert,
    require_prepared_where_it_matters,
)
from nnunet_gmabs.data.grid import labels_to_original_grid
from nnunet_gmabs.data.record import preprocessing_key
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, sha256, write_json
from nnunet_gmabs.generalist.from_plans import asking, preprocessed_scans
from nnunet_gmabs.generalist.relabel import Relabeller
from nnunet_gmabs.generalist.votes import Example
from nnunet_gmabs.settings import resolve

if TYPE_CHECKING:
    from nnunet_gmabs.commands.model import Model

ROUND = 1
RECORD = "gmabs_relabel.json"
NO_MATTER = {"cache_gib", "slices_at_once"}  # settings that change no label
Progress = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True)
class RelabelJob:
    """All scans of a data set, a model that prompts, a generalist that answers, and a folder for the labels.

    Attributes:
        network: of the model, not compiled.
        relabeller: whose rounds are on the training grid, in a folder of `output`.
        pre: nnUNet_preprocessed/DatasetXXX_Name.
        managers: plans manager and configuration manager of the model.
        file_ending: of label files.
        output: gets <case><file_ending>.
    """

    network: Any
    relabeller: Relabeller
    pre: Path
    managers: tuple[Any, Any]
    file_ending: str
    output: Path

    @property
    def identifiers(self) -> list[str]:
        """All scans, labelled ones first."""
        return [*self.relabeller.scans.labelled, *self.relabeller.scans.unlabelled]

    def label_file(self, identifier: str) -> Path:
        """Of one scan."""
        return self.output / f"{identifier}{self.file_ending}"

    def missing(self, part: slice = slice(None)) -> list[str]:
        """Scans without label file."""
        return [i for i in self.identifiers[part] if not self.label_file(i).is_file()]

    def run(self, part: slice, progress: Progress = iter) -> tuple[dict[str, float], list[Example]]:
        """Label what is missing of a part; the figures of the round so far, and a few slices to look at."""
        for identifier in set(self.missing(part)) - set(self.relabeller.missing(ROUND, part)):
            self.write(identifier)  # killed between the two files

        def each(identifiers: Sequence[str]) -> Iterator[str]:
            for identifier in progress(identifiers):
                yield identifier
                self.write(identifier)

        return self.relabeller.run(self.network, ROUND, each, part)

    def write(self, identifier: str) -> None:
        """One scan's labels from the training grid to its own, expert voxels as they were drawn there."""
        plans_manager, configuration = self.managers
        reader_writer = plans_manager.image_reader_writer_class()
        ignore_label = self.relabeller.scans.ignore_label
        round_folder = pseudo_labels.round_folder(self.relabeller.folder, ROUND)
        labels = pseudo_labels.read_pseudo_labels(round_folder / f"{identifier}.b2nd")[:]
        properties = pickle.loads((self.pre / configuration.data_identifier / f"{identifier}.pkl").read_bytes())
        labels = labels_to_original_grid(labels, properties, plans_manager, configuration)
        drawn_file = self.pre / "gt_segmentations" / f"{identifier}{self.file_ending}"
        drawn, _ = reader_writer.read_seg(str(drawn_file))
        labels = np.where(drawn[0] == ignore_label, labels, drawn[0]).astype(np.uint8)
        path = self.label_file(identifier)
        replace_atomically(path, lambda temporary: reader_writer.write_seg(labels, str(temporary), properties))


def open_job(
    dataset: str, model: Model, output: Path, device: str | None, num_parts: int, say: Callable[[str], object]
) -> RelabelJob:
    """What `gmabs relabel` works on.

    Raises:
        InputError: model, data set and settings do not fit each other, or the folder has labels of another model.
    """
    import torch

    pre = preprocessed_folder(find_raw_folder(dataset))
    predictor = model.predictor
    managers = plans_manager, configuration = predictor.plans_manager, predictor.configuration_manager
    dataset_json = _dataset_json(pre, model)
    _check_scans(pre, plans_manager, configuration, dataset_json)
    identifiers = sorted(path.stem for path in (pre / configuration.data_identifier).glob("*.pkl"))
    ensure_expert_labels(pre, plans_manager, configuration, dataset_json, identifiers)
    labelled = labelled_identifiers(pre, configuration.data_identifier, identifiers)
    config, notes = resolve(GM_ABS, pre)
    for note in notes:
        say(note)
    assert config.relabel is not None and config.generalist is not None
    if config.relabel.min_expert_agreement > 0 and num_parts > 1:
        raise InputError(
            "relabel.min_expert_agreement needs all labelled scans before the others; leave out -num_parts"
        )
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    scans = preprocessed_scans(
        pre / configuration.data_identifier,
        labelled,
        sorted(set(identifiers) - set(labelled)),
        configuration,
        plans_manager.get_label_manager(dataset_json).ignore_label,
        on,
    )
    relabeller = Relabeller(None, config.relabel, scans, output / "training_grid", config.seed)
    relabeller = asking(relabeller, config.generalist, *managers, pre, say)
    output.mkdir(parents=True, exist_ok=True)
    _refuse_other_labels(output, _made_from(model, config, relabeller))
    network = getattr(predictor.network, "_orig_mod", predictor.network).to(on)  # nnU-Net may have compiled it
    return RelabelJob(network, relabeller, pre, managers, dataset_json["file_ending"], output)


def _dataset_json(pre: Path, model: Model) -> dict[str, Any]:
    """Of the preprocessed data set, whose classes must be those of the model."""
    path = pre / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path}: not there; run gmabs prepare")
    dataset_json = json.loads(path.read_text(encoding="utf-8"))
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


def _check_scans(pre: Path, plans_manager: Any, configuration: Any, dataset_json: dict[str, Any]) -> None:
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


def _made_from(model: Model, config: GMABSConfig, relabeller: Relabeller) -> dict[str, Any]:
    """All that decides the labels, as JSON returns it."""
    assert config.generalist is not None and config.relabel is not None and relabeller.generalist is not None
    expert = hashlib.sha256()
    for identifier in relabeller.scans.labelled:
        expert.update(
            f"{identifier} {read_expert(relabeller.scans.expert_file(identifier))[1]['source_sha256']}\n".encode()
        )
    generalist = {name: value for name, value in asdict(config.generalist).items() if name not in NO_MATTER}
    made_from = {
        "checkpoint": sha256(model.folder / f"fold_{model.folds[0]}" / model.checkpoint),
        "generalist": generalist | {"weights": relabeller.generalist.weights_hash},
        "relabel": asdict(config.relabel),
        "seed": config.seed,
        "expert labels": expert.hexdigest(),
    }
    return json.loads(json.dumps(made_from))


def _refuse_other_labels(output: Path, made_from: dict[str, Any]) -> None:
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
