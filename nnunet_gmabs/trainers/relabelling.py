"""What a trainer's rounds of relabelling need: its scans and its generalist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from nnunet_gmabs.annotation.experts import DENSE_LABELS
from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
from nnunet_gmabs.data import preprocessed
from nnunet_gmabs.data.grid import labels_to_training_grid
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.cost import cost_of_first_round, tell
from nnunet_gmabs.generalist.from_plans import asking, preprocessed_scans
from nnunet_gmabs.generalist.relabel import Progress, Relabeller, Scans, few
from nnunet_gmabs.generalist.votes import Example
from nnunet_gmabs.trainers.ranks import Ranks

if TYPE_CHECKING:
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS


def build(trainer: nnUNetTrainerGMABS) -> Relabeller:
    """The relabeller of a trainer.

    Raises:
        InputError: the generalist cannot be used, or there is no channel that it should see.
    """
    relabeller = Relabeller(
        None,
        trainer.relabel_settings,
        training_scans(trainer),
        trainer.pseudo_labels,
        trainer.config.seed,
        truth=None if trainer.relabel_settings.truth == "unused" else dense_labels(trainer),
    )
    settings = trainer.config.generalist
    if settings is None:
        return relabeller
    return asking(
        relabeller,
        settings,
        trainer.plans_manager,
        trainer.configuration_manager,
        Path(trainer.preprocessed_dataset_folder_base),
        trainer.print_to_log_file,
    )


def tell_cost(trainer: nnUNetTrainerGMABS) -> None:
    """Say what the first round will cost a generalist with an encoder; one rank measures.

    Raises:
        InputError: on all ranks, when encoding would take hours on a CPU.
    """
    settings, ranks = trainer.config.generalist, trainer.ranks
    if settings is None:
        return
    cost = None
    if ranks.writes:
        shape = partial(preprocessed.shape, Path(trainer.preprocessed_dataset_folder))
        cost = cost_of_first_round(trainer.relabeller, shape, ranks.number)
    tell(ranks.of_writer(cost), trainer.device.type == "cpu", settings.accept_hours, trainer.print_to_log_file)


def run_shared(
    relabeller: Relabeller, network: nn.Module, number: int, progress: Progress, ranks: Ranks
) -> tuple[dict[str, float], list[Example]]:
    """Relabeller.run by all ranks, each its part of the scans; the one that writes completes the round.

    Labelled scans come first and are waited for: they tell which views are good (relabel.min_expert_agreement).

    Raises:
        OSError: on all ranks, when a file could not be written by one.
    """
    if ranks.number == 1:
        return relabeller.run(network, number, progress)
    examples: list[Example] = []
    labelled = relabeller.on(replace(relabeller.scans, unlabelled=[]))
    for first_and_then in (labelled, relabeller):

        def label(scans: Relabeller = first_and_then) -> None:
            examples.extend(scans.label(network, number, progress, ranks.part))

        if failed := ranks.errors(label, OSError):
            raise OSError("; ".join(failed))
    figures: dict[str, float] = {}
    if failed := ranks.errors(lambda: figures.update(relabeller.close(number)) if ranks.writes else None, OSError):
        raise OSError("; ".join(failed))
    return ranks.of_writer(figures), few(examples)


def dense_labels(trainer: nnUNetTrainerGMABS) -> Callable[[str], np.ndarray]:
    """Labels of labelsTr_dense on the training grid.

    Raises:
        InputError: there is no such folder.
    """
    raw = RawFolder(find_raw_folder(trainer.plans_manager.dataset_name))
    if not (raw.folder / DENSE_LABELS).is_dir():
        raise InputError(f"{raw.folder}: relabel.truth is set, but there is no {DENSE_LABELS}; leave it out")

    def labels(identifier: str) -> np.ndarray:
        properties = preprocessed.properties(Path(trainer.preprocessed_dataset_folder), identifier)
        dense, _ = raw.read_labels(raw.label_path(identifier, DENSE_LABELS))
        managers = trainer.plans_manager, trainer.configuration_manager
        return labels_to_training_grid(dense, properties, *managers, None)

    return labels


def training_scans(trainer: nnUNetTrainerGMABS) -> Scans:
    """The fold's training scans; of the unlabelled ones at most as many as the settings say, drawn by the seed."""
    unlabelled, most = trainer.scans.unlabelled, trainer.relabel_settings.max_unlabelled
    at_the_start = sorted({*unlabelled, *trainer.answered})  # what is drawn must not change when answers arrive
    if most is not None and most < len(at_the_start):
        drawn = np.random.default_rng(trainer.entropy).choice(at_the_start, most, replace=False)
        unlabelled = sorted({*unlabelled}.intersection(drawn.tolist()))
    return preprocessed_scans(
        Path(trainer.preprocessed_dataset_folder),
        trainer.scans.labelled,
        unlabelled,
        trainer.configuration_manager,
        trainer.label_manager.ignore_label,
        trainer.device,
        trainer.own_expert,
        trainer.config.cpu_bfloat16,
    )
