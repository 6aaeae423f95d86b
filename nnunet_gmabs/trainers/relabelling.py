"""What a trainer's rounds of relabelling need: its scans and its generalist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import blosc2
import numpy as np

from nnunet_gmabs.data.expert import expert_file
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.images import plan_window
from nnunet_gmabs.generalist.models import generalist_of
from nnunet_gmabs.generalist.relabel import Relabeller, Scans

if TYPE_CHECKING:
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS


def build(trainer: nnUNetTrainerGMABS) -> Relabeller:
    """The relabeller of a trainer.

    Raises:
        InputError: the generalist cannot be used, or there is no channel that it should see.
    """
    relabeller = Relabeller(
        None, trainer.relabel_settings, training_scans(trainer), trainer.pseudo_labels, trainer.config.seed
    )
    settings = trainer.config.generalist
    if settings is None:
        return relabeller
    schemes = trainer.configuration_manager.normalization_schemes
    if settings.channel >= len(schemes):
        raise InputError(
            f"generalist.channel is {settings.channel}, but the scans have channels 0 to {len(schemes) - 1}; "
            "choose one of them"
        )
    intensities = trainer.plans_manager.foreground_intensity_properties_per_channel.get(str(settings.channel))
    window = plan_window(schemes[settings.channel], intensities, settings.window_low, settings.window_high)
    generalist = generalist_of(settings, trainer.device)
    return relabeller.asking(generalist, settings.channel, window)


def training_scans(trainer: nnUNetTrainerGMABS) -> Scans:
    """The fold's training scans; of the unlabelled ones at most as many as the settings say, drawn by the seed."""
    folder = Path(trainer.preprocessed_dataset_folder)
    unlabelled, most = trainer.scans.unlabelled, trainer.relabel_settings.max_unlabelled
    if most is not None and most < len(unlabelled):
        rng = np.random.default_rng(trainer.entropy)
        unlabelled = sorted(rng.choice(unlabelled, most, replace=False).tolist())
    configuration = trainer.configuration_manager
    return Scans(
        labelled=trainer.scans.labelled,
        unlabelled=unlabelled,
        image=lambda identifier: blosc2.open(urlpath=str(folder / f"{identifier}.b2nd"), mode="r")[:],
        expert_file=lambda identifier: expert_file(folder.parent, folder.name, identifier, trainer.own_expert),
        spacing_mm=configuration.spacing,
        patch_size=configuration.patch_size,
        ignore_label=trainer.label_manager.ignore_label,
        device=trainer.device,
    )
