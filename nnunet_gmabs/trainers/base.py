"""nnUNetTrainerSparse: nnU-Net on labelled scans, every drawn voxel used and none invented."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn

from nnunet_gmabs import postprocessing
from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.data.dataset import SparseDataset
from nnunet_gmabs.data.expert import expert_labels
from nnunet_gmabs.data.loader import TwoStreamLoader
from nnunet_gmabs.data.streams import FoldScans, scans_of_fold
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.inference import mixed_precision
from nnunet_gmabs.learning.gradients import gradient_norms, gradient_ratios
from nnunet_gmabs.learning.losses import weighted_sum
from nnunet_gmabs.learning.schedules import faded
from nnunet_gmabs.learning.supervised import SupervisedLoss, labelled_mask
from nnunet_gmabs.presets import SPARSE
from nnunet_gmabs.settings import resolve
from nnunet_gmabs.trainers import loaders
from nnunet_gmabs.trainers.compiled import keep_saved_for_backward
from nnunet_gmabs.trainers.distributed import unwrap
from nnunet_gmabs.trainers.on_cpu import make_faster_on_cpu
from nnunet_gmabs.trainers.progress import EpochMeans
from nnunet_gmabs.trainers.pseudo_dice import hardly_found, mean_pseudo_dice, with_own_target
from nnunet_gmabs.trainers.random_state import seed_everything
from nnunet_gmabs.trainers.resumable import ResumableTrainer

GRADIENT_CLIP = 12  # nnU-Net's own
LEAST_LOSS_SCALE = 2.0**-24  # 40 steps lost in a row, or many more over time; far below, the scale's inverse is inf


class nnUNetTrainerSparse(ResumableTrainer):
    """The control that isolates the label repairs: nnU-Net's Dice + cross-entropy on clean sparse labels.

    A training step is nnU-Net's own, with its loss taken apart: loss_terms() says what is learned from,
    term_weights() how strongly. Subclasses add terms.
    """

    config: GMABSConfig = SPARSE
    inference_networks: tuple[str, ...] = ("student", "teacher", "peer", "better")  # valid values of that setting

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature, which it inspects)
    ) -> None:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError("-device cuda, but torch sees no CUDA device here; use -device cpu (or mps on a Mac)")
        dataset_folder = Path(str(nnUNet_preprocessed), plans["dataset_name"]) if nnUNet_preprocessed.is_set() else None
        settings, notes = resolve(type(self).config, dataset_folder)  # first: wrong settings must leave no trace
        for name in ("teacher", "consistency", "mutual", "synthetic", "relabel", "noise_tolerant", "active"):
            if getattr(settings, name) is None and getattr(type(self).config, name) is not None:
                raise InputError(f"{type(self).__name__} needs the setting {name}; to go without, use another trainer")
        if settings.inference_network not in self.inference_networks:
            raise InputError(
                f"inference_network is {settings.inference_network!r}; {type(self).__name__} predicts with one of "
                f"{', '.join(map(repr, self.inference_networks))}"
            )
        plans.setdefault("continue_training", False)  # nnU-Net pops it, and only its own command sets it
        super().__init__(plans, configuration, fold, dataset_json, device=device)
        if device.type == "cpu" and os.environ.get("OMP_NUM_THREADS"):
            # nnU-Net's command takes all cores; two trainings side by side then wait for each other's threads
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"].split(",")[0]))  # "2,1": for nested regions, too
        self.config = settings
        self.num_epochs = self.schedule_epochs = settings.num_epochs
        self.num_iterations_per_epoch = settings.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.num_val_iterations_per_epoch
        self.initial_lr = settings.initial_lr
        self.save_every = settings.save_every
        self.epoch_means = EpochMeans()
        for note in notes:
            self.print_to_log_file(note)

    @property
    def entropy(self) -> tuple[int, int]:
        """What random numbers follow from: the seed and the fold ("all" counts as 1000)."""
        return self.config.seed, 1000 if self.fold == "all" else int(self.fold)

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]; of its first planned length when it was prolonged."""
        return min(self.iteration / (self.schedule_epochs * self.num_iterations_per_epoch), 1.0)

    @property
    def last_progress(self) -> float:
        """Progress when the last epoch begins: later no round of anything falls due."""
        return min((self.num_epochs - 1) / self.schedule_epochs, 1.0)

    # ---- set-up

    def initialize(self) -> None:
        """Refuse what is not supported, seed, and build as nnU-Net does."""
        if self.is_cascaded:
            raise NotImplementedError(
                f"{type(self).__name__} does not train cascades ({self.configuration_name}); "
                "use 3d_fullres or 3d_lowres"
            )
        loaders.preprocessed_scans(self)  # nnU-Net would look there, too, and not say what is missing
        seed_everything(*self.entropy)
        if self._do_i_compile():
            keep_saved_for_backward()
        super().initialize()
        self.suit_device(unwrap(self.network))

    def suit_device(self, network: nn.Module) -> None:
        """Make a new network faster where that is known to help: on a CPU in single precision."""
        if self.device.type == "cpu" and not self.config.cpu_bfloat16:
            make_faster_on_cpu(network)

    def _build_loss(self) -> nn.Module:
        """The supervised term over nnU-Net's deep supervision outputs with nnU-Net's weights (1, 1/2, ..., 0)."""
        settings = self.config.supervision
        self.supervised = loss = SupervisedLoss(
            self.label_manager.ignore_label,
            self.label_manager.has_regions,
            self.configuration_manager.batch_dice,
            settings.dice_weight,
            settings.cross_entropy_weight,
            settings.cross_entropy_average,
            self.ranks.total,
        )
        if not self.enable_deep_supervision:
            return loss
        weights = np.array([1 / 2**i for i in range(len(self._get_deep_supervision_scales()))])
        if len(weights) > 1:
            weights[-1] = 0
        return DeepSupervisionWrapper(loss, weights / weights.sum())

    # ---- data

    @cached_property
    def scans(self) -> FoldScans:
        """The scans of this fold; builds expert files that are missing on the training grid."""
        identifiers, labelled = loaders.labelled_scans(self)
        splits_file = Path(self.preprocessed_dataset_folder_base, "splits_final.json")
        splits = []
        if self.fold != "all":
            if not splits_file.is_file():
                raise InputError(f"{splits_file}: not there; run gmabs prepare, or train fold 'all'")
            splits = load_json(str(splits_file))
        return scans_of_fold(identifiers, labelled, splits, self.fold, str(splits_file))

    def do_split(self) -> tuple[list[str], list[str]]:
        """Training scans, labelled and unlabelled, and validation scans."""
        return sorted(self.scans.labelled + self.scans.unlabelled), list(self.scans.validation)

    @property
    def pseudo_labels(self) -> Path | None:
        """Folder of the rounds of pseudo labels; None where there are none."""
        return None

    @property
    def own_expert(self) -> Path | None:
        """Folder of expert files that belong to this training alone; None where there are none."""
        return None

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        """nnU-Net's augmentation; patches, and scans to predict, are mirrored only where the settings say so."""
        rotation, dummy_2d, patch_size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.config.mirroring:
            self.inference_allowed_mirroring_axes = axes = None
        return rotation, dummy_2d, patch_size, axes

    def get_dataloaders(self):
        """nnU-Net's augmentation and workers around the two streams."""
        return loaders.build(self)

    @property
    def uses_unlabelled(self) -> bool:
        """Whether batches have unlabelled samples, as streams.labelled_share says."""
        return self.config.consistency is not None

    def training_loader(self, data: SparseDataset, *args: Any, **options: Any) -> TwoStreamLoader:
        """The loader of training batches; arguments as nnU-Net's and TwoStreamLoader's."""
        return TwoStreamLoader(data, *args, **options)

    # ---- the objective

    def loss_terms(self, output: list[Tensor] | Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named scalars of one batch, in the graph of the network.

        Args:
            output: the network's, for batch["data"]: a list over deep supervision outputs, or one tensor.
            batch: on the device: data (B, channels, X, Y[, Z]), target like output, labelled (B,) bool (samples of
                the labelled stream), and what a subclass's loader adds.
        """
        return {"supervised": self.loss(output, batch["target"])}

    def full_resolution(self, output: list[Tensor] | Tensor) -> Tensor:
        """The first of the deep supervision outputs."""
        return output[0] if self.enable_deep_supervision else output  # type: ignore[return-value]

    def term_weights(self) -> dict[str, float]:
        """Weight of each term at this moment of the training."""
        return {"supervised": 1.0}

    # ---- one step

    def train_step(self, batch: dict) -> dict:
        """One step on the weighted sum of the terms, as nnU-Net makes it."""
        supervision = self.config.supervision
        self.supervised.class_balance = faded(self.progress, supervision.class_balance, supervision.class_balance_end)
        batch = {name: self._to_device(value) for name, value in batch.items()}
        loss = self.learn(batch | {"target": self.unknown_where_unlabelled(batch)})
        self.after_step()
        self.iteration += 1
        return {"loss": loss.cpu().numpy()}

    def unknown_where_unlabelled(self, batch: dict[str, Any]) -> list[Tensor] | Tensor:
        """The target without the padding of unlabelled samples, which would take weight from what is drawn."""
        ignore_label, regions = self.label_manager.ignore_label, self.label_manager.has_regions

        def unknown(target: Tensor) -> Tensor:
            unlabelled = ~batch["labelled"].view(-1, *[1] * (target.ndim - 1))
            if regions:
                return torch.cat([target[:, :-1], target[:, -1:] | unlabelled], 1)
            return target.masked_fill(unlabelled, ignore_label)

        if ignore_label is None:
            return batch["target"]
        return [unknown(t) for t in batch["target"]] if isinstance(batch["target"], list) else unknown(batch["target"])

    def loss_parts(self, batch: dict[str, Any]) -> list[Callable[[], dict[str, Tensor]]]:
        """The terms in groups: each group's backward pass is done, and its memory free, before the next is computed."""
        return [lambda: self.loss_terms(self.network(batch["data"]), batch)]

    def learn(self, batch: dict[str, Any]) -> Tensor:
        """One step of self.optimizer with self.network; the weighted sum of the terms, without its graph."""
        self.optimizer.zero_grad(set_to_none=True)
        weights = self.term_weights()
        measured = len(weights) > 1 and self.iteration % self.num_iterations_per_epoch == 0
        terms: dict[str, Tensor] = {}
        norms: dict[str, float] = {}
        for part in self.loss_parts(batch):
            with self.autocast():
                new = part()
                loss = weighted_sum(new, {name: weights[name] for name in new})
            if measured:
                weighted = {name: weights[name] * term for name, term in new.items()}
                norms |= gradient_norms(weighted, [*self.network.parameters()], self._loss_scale, self.ranks.total)
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            terms |= {name: term.detach() for name, term in new.items()}
        left_out = {name: math.nan for name in self.terms_without_sample(batch) if name in terms}
        self._log_step(terms, weights, batch["target"], left_out)
        if measured:
            ratios = gradient_ratios(norms | left_out)
            self.epoch_means.add({f"gradient_ratio/{name}": ratio for name, ratio in ratios.items()})
        self._step()
        return weighted_sum(terms, weights)

    def terms_without_sample(self, batch: dict[str, Any]) -> set[str]:
        """Terms that no process has a sample for in this batch: their 0 says nothing, and the log leaves it out."""
        return set()

    def in_any_process(self, samples: int) -> bool:
        """Whether one process or more has samples of a kind, this one so many; all of them ask at the same time."""
        if self.ranks.number == 1:
            return samples > 0
        return bool(self.ranks.total(torch.tensor(float(samples), device=self.device)) > 0)

    def after_step(self) -> None:
        """Called after each optimiser step, before the iteration is counted."""

    def autocast(self):
        """nnU-Net's rule, mixed precision on CUDA, and ours by setting on a CPU."""
        return mixed_precision(self.device, self.config.cpu_bfloat16)

    def _to_device(self, value: Any) -> Any:
        """Tensors, and tensors in lists, on the device; all else (identifiers) as it is."""
        if isinstance(value, list):
            return [self._to_device(v) for v in value]
        return value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value

    @property
    def _loss_scale(self) -> float:
        return 1.0 if self.grad_scaler is None else self.grad_scaler.get_scale()

    def _step(self) -> None:
        """nnU-Net's: the gradient clipped, then a step; one that is not finite is skipped with mixed precision."""
        self.ranks.sum_gradients(self.network.parameters())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def _log_step(
        self,
        terms: dict[str, Tensor],
        weights: dict[str, float],
        target: list[Tensor] | Tensor,
        left_out: dict[str, float],
    ) -> None:
        """Note terms, but for those left out, weights and labelled voxels; a term that is not finite is named."""
        full = target[0] if isinstance(target, list) else target
        drawn = labelled_mask(full, self.label_manager.ignore_label, self.label_manager.has_regions).float().mean()
        # one transfer from the device for all numbers
        *values, share = torch.stack([*(t.detach().float() for t in terms.values()), drawn]).tolist()
        for name, value in zip(terms, values, strict=True):
            if not math.isfinite(value):
                message = f"the term {name!r} is {value} in epoch {self.current_epoch}, iteration {self.iteration}"
                if self.grad_scaler is None or self._loss_scale < LEAST_LOSS_SCALE:
                    raise FloatingPointError(f"{message}; lower initial_lr or look for NaN in the images")
                self.print_to_log_file(f"WARNING: {message}; mixed precision skips this step")
        self.epoch_means.add({f"loss/{n}": left_out.get(n, v) for n, v in zip(terms, values, strict=True)})
        self.epoch_means.add({f"weight/{n}": w for n, w in weights.items()})
        self.epoch_means.add({"share/labelled_voxels": share})

    # ---- validation

    @contextmanager
    def using(self, network: nn.Module) -> Iterator[None]:
        """Inside, nnU-Net's methods see another network as self.network."""
        own, self.network = self.network, network
        try:
            yield
        finally:
            self.network = own

    @property
    def validated_networks(self) -> dict[str, nn.Module]:
        """The networks, by name, whose pseudo Dice the log has; one of them is for prediction."""
        return {"student": self.network}

    @property
    def inference_name(self) -> str:
        """Which validated network is for prediction: by setting; the student where it names none of them."""
        name = self.config.inference_network
        return name if name in self.validated_networks else "student"

    @property
    def inference_network(self) -> nn.Module:
        """The network that checkpoints hold for prediction."""
        return self.validated_networks[self.inference_name]

    def on_validation_epoch_start(self) -> None:
        """nnU-Net's; the loss of validation batches means the same in every epoch."""
        super().on_validation_epoch_start()
        self.supervised.class_balance = 0.0

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's outputs for every validated network, by its name."""
        outputs = {}
        for name, network in self.validated_networks.items():
            with self.using(network):
                outputs[name] = super().validation_step(with_own_target(batch))
        return outputs

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Pseudo Dice of every network in our log, and of the one for prediction in nnU-Net's.

        An epoch whose patches show no class does not spoil nnU-Net's moving average.
        """
        outputs = {name: [step[name] for step in val_outputs] for name in self.validated_networks}
        self.note_pseudo_dice({name: mean_pseudo_dice(steps, self.ranks.summed) for name, steps in outputs.items()})
        super().on_validation_epoch_end(outputs[self.inference_name])
        average, mean = self.logger.get_value("ema_fg_dice", None), self.logger.get_value("mean_fg_dice", -1)
        before = average[-2] if len(average) > 1 else math.nan
        if math.isnan(mean) or math.isnan(before):
            average[-1] = before if math.isnan(mean) else mean
        average[-1] = float(average[-1])  # as checkpoints store it: the next average must not depend on a resume

    def note_pseudo_dice(self, pseudo_dice: dict[str, float]) -> None:
        """Keep an epoch's, by network, for our log; called before it is asked which network is for prediction."""
        self._pseudo_dice = pseudo_dice

    def epoch_summary(self) -> dict[str, float]:
        """Pseudo Dice of every validated network on the validation scans' labelled voxels."""
        return {f"pseudo_dice/{name}": value for name, value in self._pseudo_dice.items()}

    def on_train_end(self) -> None:
        """Also nnU-Net's post-processing, as the expert's planes tell it, and a word on classes not learned."""
        super().on_train_end()
        labels = self.label_manager
        classes = labels.foreground_regions if labels.has_regions else labels.foreground_labels
        for warning in hardly_found(classes, self.logger.get_value("dice_per_class_or_region", -1)):
            self.print_to_log_file(warning)
        if self.ranks.writes and self.label_manager.has_ignore_label and not self.label_manager.has_regions:
            drawn = expert_labels(Path(self.preprocessed_dataset_folder), self.scans.labelled, self.own_expert)
            file = Path(self.output_folder, postprocessing.FILE)
            classes = postprocessing.write(file, drawn, self.label_manager.ignore_label)
            self.print_to_log_file(f"{file.name}: keeps the largest part of classes {classes or 'none'}")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's final validation, with the network meant for inference."""
        with self.using(self.inference_network):
            super().perform_actual_validation(save_probabilities)
