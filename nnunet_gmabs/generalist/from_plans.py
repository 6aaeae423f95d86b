"""What a round of relabelling takes from a preprocessed data set and its plans: scans, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.data import preprocessed
from nnunet_gmabs.data.expert import expert_file
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.embeddings import EmbeddingCache
from nnunet_gmabs.generalist.images import plan_window
from nnunet_gmabs.generalist.models import Generalist, load_generalist
from nnunet_gmabs.generalist.relabel import Relabeller, Scans

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

EMBEDDINGS = "gmabs_embeddings"


def preprocessed_scans(
    folder: Path,
    labelled: Sequence[str],
    unlabelled: Sequence[str],
    configuration: ConfigurationManager,
    ignore_label: int,
    device: torch.device,
    own_expert: Path | None = None,
    cpu_bfloat16: bool = False,
) -> Scans:
    """Scans in nnU-Net's folder of one configuration.

    Args:
        folder: nnUNet_preprocessed/DatasetXXX_Name/<data identifier>.
        labelled: identifiers of scans in which an expert has drawn.
        unlabelled: the others.
        configuration: of the plans.
        ignore_label: of the data set.
        device: of the network.
        own_expert: see data.expert.expert_file.
        cpu_bfloat16: see inference.mixed_precision.
    """
    return Scans(
        labelled=list(labelled),
        unlabelled=list(unlabelled),
        image=partial(preprocessed.image, folder),
        expert_file=lambda identifier: expert_file(folder.parent, folder.name, identifier, own_expert),
        spacing_mm=configuration.spacing,
        patch_size=configuration.patch_size,
        ignore_label=ignore_label,
        device=device,
        cpu_bfloat16=cpu_bfloat16,
    )


def asking(
    relabeller: Relabeller,
    settings: GeneralistConfig,
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    pre: Path,
    say: Callable[[str], object],
) -> Relabeller:
    """The relabeller with the generalist that the settings name, what that is shown, and where embeddings are kept.

    Args:
        relabeller: whose scans say on which device.
        settings: of the generalist.
        plans_manager: of the data set.
        configuration: of the plans.
        pre: nnUNet_preprocessed/DatasetXXX_Name.
        say: gets lines for a person.

    Raises:
        InputError: the generalist cannot be used, or there is no channel that it should see.
    """
    schemes = configuration.normalization_schemes
    if settings.channel >= len(schemes):
        raise InputError(
            f"generalist.channel is {settings.channel}, but the scans have channels 0 to {len(schemes) - 1}; "
            "choose one of them"
        )
    intensities = plans_manager.foreground_intensity_properties_per_channel.get(str(settings.channel))
    window = plan_window(schemes[settings.channel], intensities, settings.window_low, settings.window_high)
    generalist = load_generalist(settings, relabeller.scans.device)
    cache = embedding_cache(pre / EMBEDDINGS, generalist, settings.cache_gib, say)
    return relabeller.asking(generalist, settings.channel, window, cache)


def embedding_cache(
    folder: Path, generalist: Generalist, gib: float, say: Callable[[str], object]
) -> EmbeddingCache | None:
    """Where embeddings are kept; None for a generalist without encoder, for a size of 0, or where nothing can be."""
    if not generalist.has_encoder or gib == 0:
        return None
    try:
        return EmbeddingCache(folder, generalist.name, generalist.weights_hash, int(gib * 2**30), say=say)
    except OSError as error:
        say(f"WARNING: {folder}: embeddings cannot be kept there ({error}); every slice is encoded in every round")
        return None
