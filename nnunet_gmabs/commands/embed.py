"""Encode all slices of all scans for the generalist, before a training or `gmabs relabel` asks for them.

    gmabs embed -d 4 -c 3d_fullres

For a generalist with an encoder (sam, mobile_sam), which costs far more than all else in a round of relabelling. What
is encoded lies in gmabs_embeddings of the preprocessed data set, where all trainings on these scans find it. Which
generalist, and what it is shown, is read from gmabs.yaml of the data set and the file in nnUNet_gmabs_config, as for a
training. Rounds encode what they need by themselves, and only slices with a prompt, so this is never necessary; but it
can be shared by several processes, on several machines, before a training begins.

Several processes can share the work as with nnUNetv2_predict: -num_parts 4 -part_id 0 ... 3. What was killed goes on
where it was when it is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nnunet_gmabs.commands.parts import add_part_arguments, part_of
from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from nnunet_gmabs.generalist.embed_ahead import EmbedAhead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, with nnU-Net's names where nnU-Net has one."""
    parser.add_argument("-d", dest="dataset", metavar="ID", required=True, help="ID, name or folder of the data set")
    parser.add_argument("-c", dest="configuration", metavar="CONFIGURATION", required=True, help="such as 3d_fullres")
    parser.add_argument("-p", dest="plans", metavar="PLANS", default="nnUNetPlans", help="plans (default: nnUNetPlans)")
    add_part_arguments(parser)
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: a GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """Fill the cache, and say what that costs before and what it has cost."""
    from tqdm import tqdm

    part = part_of(args)
    opened = open_job(args.dataset, args.plans, args.configuration, args.device, lambda line: print(line, flush=True))
    if opened is None:
        return 0
    job, identifiers = opened
    job.run(identifiers, part, lambda scans: tqdm(scans, "embedding", unit=" scans", disable=None))
    print(f"{job.encoded} slices encoded, {job.seen - job.encoded} were there already: {job.cache.folder}")
    return 0


def open_job(
    dataset: str, plans: str, configuration_name: str, device: str | None, say: Callable[[str], object]
) -> tuple[EmbedAhead, list[str]] | None:
    """What `gmabs embed` works on, and all scans; None, which is said, for a generalist without encoder.

    Raises:
        InputError: the data set is not prepared for this configuration, or nothing can be kept.
    """
    import torch

    from nnunet_gmabs.annotation.raw_folder import find_raw_folder
    from nnunet_gmabs.commands.relabelling_checks import check_scans, prepared_dataset_json, relabelling_settings
    from nnunet_gmabs.data import preprocessed
    from nnunet_gmabs.data.cases import preprocessed_folder
    from nnunet_gmabs.data.planning import load_plans
    from nnunet_gmabs.generalist.embed_ahead import EmbedAhead
    from nnunet_gmabs.generalist.from_plans import asking, preprocessed_scans
    from nnunet_gmabs.generalist.relabel import Relabeller

    pre = preprocessed_folder(find_raw_folder(dataset))
    dataset_json = prepared_dataset_json(pre)
    plans_manager = load_plans(pre, plans)
    if configuration_name not in plans_manager.available_configurations:
        raise InputError(
            f"-c {configuration_name}: not in {plans}; there are {', '.join(plans_manager.available_configurations)}"
        )
    configuration = plans_manager.get_configuration(configuration_name)
    check_scans(pre, plans_manager, configuration, dataset_json)
    config = relabelling_settings(pre, say)
    assert config.relabel is not None and config.generalist is not None
    folder = pre / configuration.data_identifier
    identifiers = sorted(path.stem for path in folder.glob("*.pkl"))
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    ignore_label = plans_manager.get_label_manager(dataset_json).ignore_label
    scans = preprocessed_scans(folder, [], identifiers, configuration, ignore_label, on)
    relabeller = Relabeller(None, config.relabel, scans, folder, config.seed)  # writes nothing into its folder here
    relabeller = asking(relabeller, config.generalist, plans_manager, configuration, pre, say)
    assert relabeller.generalist is not None
    if not relabeller.generalist.has_encoder:
        say(f"{config.generalist.name}: a generalist without encoder, nothing to embed")
        return None
    if relabeller.cache is None:
        raise InputError("no embeddings can be kept: make generalist.cache_gib larger than 0, and the folder writable")
    shape = partial(preprocessed.shape, folder)
    return EmbedAhead(relabeller, shape, config.generalist.slices_at_once, say), identifiers
