"""One round of relabelling with a finished model: on the training grid, and from there to label files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_gmabs.annotation.raw_folder import find_raw_folder
from nnunet_gmabs.commands.relabelling_checks import (
    check_scans,
    made_from,
    matching_dataset_json,
    refuse_other_labels,
    relabelling_settings,
)
from nnunet_gmabs.data import preprocessed, pseudo_labels
from nnunet_gmabs.data.cases import preprocessed_folder
from nnunet_gmabs.data.expert import ensure_expert_labels, labelled_identifiers
from nnunet_gmabs.data.grid import labels_to_original_grid
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.generalist.cost import cost_of_first_round, tell
from nnunet_gmabs.generalist.from_plans import asking, preprocessed_scans
from nnunet_gmabs.generalist.relabel import Relabeller
from nnunet_gmabs.generalist.votes import Example

if TYPE_CHECKING:
    from nnunet_gmabs.commands.model import Model

ROUND = 1
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
        properties = preprocessed.properties(self.pre / configuration.data_identifier, identifier)
        labels = labels_to_original_grid(labels, properties, plans_manager, configuration)
        drawn_file = self.pre / "gt_segmentations" / f"{identifier}{self.file_ending}"
        drawn, _ = reader_writer.read_seg(str(drawn_file))
        labels = np.where(drawn[0] == ignore_label, labels, drawn[0]).astype(np.uint8)
        path = self.label_file(identifier)
        replace_atomically(path, lambda temporary: reader_writer.write_seg(labels, str(temporary), properties))


def open_job(
    dataset: str,
    model: Model,
    output: Path,
    device: str | None,
    num_parts: int,
    say: Callable[[str], object],
    yes: bool = False,
) -> RelabelJob:
    """What `gmabs relabel` works on.

    Raises:
        InputError: model, data set and settings do not fit each other, the folder has labels of another model, or
            (without yes) encoding would take hours on a CPU.
    """
    import torch

    pre = preprocessed_folder(find_raw_folder(dataset))
    predictor = model.predictor
    managers = plans_manager, configuration = predictor.plans_manager, predictor.configuration_manager
    dataset_json = matching_dataset_json(pre, model)
    check_scans(pre, plans_manager, configuration, dataset_json)
    identifiers = sorted(path.stem for path in (pre / configuration.data_identifier).glob("*.pkl"))
    ensure_expert_labels(pre, plans_manager, configuration, dataset_json, identifiers)
    labelled = labelled_identifiers(pre, configuration.data_identifier, identifiers)
    config = relabelling_settings(pre, say)
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
    cost = cost_of_first_round(relabeller, partial(preprocessed.shape, pre / configuration.data_identifier), num_parts)
    tell(cost, on.type == "cpu", float("inf") if yes else config.generalist.accept_hours, say)
    output.mkdir(parents=True, exist_ok=True)
    refuse_other_labels(output, made_from(model, config, relabeller))
    network = getattr(predictor.network, "_orig_mod", predictor.network).to(on)  # nnU-Net may have compiled it
    return RelabelJob(network, relabeller, pre, managers, dataset_json["file_ending"], output)
