"""Data loaders of a trainer: nnU-Net's augmentation and workers around the two streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_gmabs.data import expert
from nnunet_gmabs.data.data_workers import DataWorkers
from nnunet_gmabs.data.dataset import SparseDataset
from nnunet_gmabs.data.loader import TwoStreamLoader
from nnunet_gmabs.data.record import require_prepared_where_it_matters
from nnunet_gmabs.data.transforms import for_sparse_labels
from nnunet_gmabs.errors import InputError

if TYPE_CHECKING:
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse


def preprocessed_scans(trainer: nnUNetTrainerSparse) -> list[str]:
    """Identifiers of all scans that are there to be trained on; InputError when there is none."""
    folder = Path(trainer.preprocessed_dataset_folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not there; run gmabs prepare -c {trainer.configuration_name}")
    identifiers = sorted(nnUNetDatasetBlosc2.get_identifiers(str(folder)))
    if not identifiers:
        raise InputError(f"{folder}: holds no .b2nd scan; preprocess again with gmabs prepare (nnunetv2 >= 2.8.1)")
    return identifiers


def labelled_scans(trainer: nnUNetTrainerSparse) -> tuple[list[str], list[str]]:
    """All preprocessed scans and the labelled ones; expert files that are missing or outdated are built."""
    folder = Path(trainer.preprocessed_dataset_folder)
    identifiers = preprocessed_scans(trainer)
    managers = trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    require_prepared_where_it_matters(folder.parent, *managers)
    with trainer.ranks.writer_first():
        expert.ensure_expert_labels(folder.parent, *managers, identifiers)
    return identifiers, expert.labelled_identifiers(folder.parent, folder.name, identifiers)


def build(trainer: nnUNetTrainerSparse):
    """Training and validation augmenters; each has drawn its first batch, as in nnU-Net."""
    patch_size = trainer.configuration_manager.patch_size
    rotation, dummy_2d, initial_patch_size, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    labels = trainer.label_manager
    common = {"foreground_labels": labels.foreground_labels, "ignore_label": labels.ignore_label}
    training = trainer.get_training_transforms(
        patch_size,
        rotation,
        None,  # deep supervision and regions come last, in for_sparse_labels
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
        **common,
    )
    validation = trainer.get_validation_transforms(None, **common)
    # a settings file for all trainers of a data set may set the share; without an unsupervised term it has no meaning
    scans = trainer.scans
    share = labelled_share(trainer)
    used = share < 1 or trainer.config.synthetic is not None  # objects are pasted into unlabelled scans
    unlabelled = scans.unlabelled
    if share < 1 and not unlabelled:
        trainer.print_to_log_file("no unlabelled scan: the unlabelled stream draws from the labelled scans, anywhere")
        unlabelled = scans.labelled
    trainer.print_to_log_file(
        f"{len(scans.labelled)} labelled scans, {len(scans.unlabelled)} unlabelled ones"
        f"{'' if used else ' (not used)'}, validation on {len(scans.validation)} labelled ones"
        f"{', which are also trained on' if set(scans.validation) & set(scans.labelled) else ''}"
    )
    workers = max(1, get_allowed_n_proc_DA())
    iterations = trainer.schedule_epochs * trainer.num_iterations_per_epoch
    loaders = (
        _loader(
            trainer,
            (scans.labelled, unlabelled if used else []),
            initial_patch_size,
            training,
            make=trainer.training_loader,
            pseudo_labels=trainer.pseudo_labels,
            labelled_share=share,
            all_labelled_batches=round(trainer.config.streams.unlabelled_from * iterations / workers),
            batches_drawn=trainer.iteration // workers,
            seed=(*trainer.entropy, trainer.local_rank, trainer.current_epoch, 0),
        ),
        _loader(
            trainer,
            (scans.validation, []),
            patch_size,
            validation,
            labelled_share=1.0,
            seed=(*trainer.entropy, trainer.local_rank, trainer.current_epoch, 1),
        ),
    )
    augmenters = tuple(_augment(loader, trainer, divisor) for loader, divisor in zip(loaders, (1, 2), strict=True))
    for augmenter in augmenters:
        next(augmenter)
    return augmenters


def labelled_share(trainer: nnUNetTrainerSparse) -> float:
    """Share of a batch for the labelled stream: as many samples a step as the settings say of the plans' batch P.

    labelled_share x batch_share x P over the size of the batch, which is rounded up: what is added is unlabelled.
    """
    streams = trainer.config.streams
    if not trainer.uses_unlabelled or streams.labelled_share == 1:
        return 1.0
    wanted = streams.labelled_share * streams.batch_share * trainer.plans_batch_size
    return wanted / trainer.whole_batch_size


def _loader(
    trainer: nnUNetTrainerSparse,
    streams: tuple[list[str], list[str]],
    size: Sequence[int],
    pipeline: Any,
    make: Callable[..., TwoStreamLoader] = TwoStreamLoader,
    pseudo_labels: Path | None = None,
    **position: Any,
) -> TwoStreamLoader:
    """A loader of (labelled, unlabelled) scans that crops patches of a size for nnU-Net's pipeline."""
    labels = trainer.label_manager
    labelled, unlabelled = streams
    regions = labels.foreground_regions if labels.has_regions else None
    return make(
        SparseDataset(
            trainer.preprocessed_dataset_folder,
            sorted({*labelled, *unlabelled}),
            labels,
            pseudo_labels,
            trainer.own_expert,
        ),
        trainer.batch_size,
        size,
        trainer.configuration_manager.patch_size,
        labels,
        oversample_foreground_percent=trainer.oversample_foreground_percent,
        transforms=for_sparse_labels(
            pipeline,
            labels.ignore_label,
            trainer._get_deep_supervision_scales(),
            regions,
            trainer.config.supervision.padding,
            trainer.config.supervision.padding_step,
        ),
        labelled=labelled,
        unlabelled=unlabelled,
        whole_batch_size=trainer.whole_batch_size,
        plans_batch_size=trainer.plans_batch_size,
        part=trainer.ranks.part,
        **position,
    )


def _augment(loader: TwoStreamLoader, trainer: nnUNetTrainerSparse, divisor: int):
    """nnU-Net's own choice of worker processes and buffers."""
    processes = get_allowed_n_proc_DA()
    if processes == 0:
        return SingleThreadedAugmenter(loader, None)
    return DataWorkers(
        data_loader=loader,
        transform=None,
        num_processes=max(1, processes // divisor),
        num_cached=max(6 // divisor, processes // (2 * divisor)),
        seeds=None,  # the loader seeds each worker itself
        pin_memory=trainer.device.type == "cuda",
        wait_time=0.002,
    )
