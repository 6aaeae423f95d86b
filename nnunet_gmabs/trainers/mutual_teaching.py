"""Mutual teaching as a mixin: the network of a trainer gets a peer, and each learns from the other one's labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnunet_gmabs.config import MutualConfig
from nnunet_gmabs.learning import cutmix
from nnunet_gmabs.learning.feature_perturbation import apply_feature_perturbation, draw_feature_perturbations
from nnunet_gmabs.learning.mutual import (
    PseudoLabels,
    kept_shares,
    mutual_loss,
    pseudo_labels,
)
from nnunet_gmabs.learning.schedules import confidence_threshold, ramped
from nnunet_gmabs.learning.strong_view import apply_strong_view, draw_strong_view
from nnunet_gmabs.trainers.distributed import unwrap
from nnunet_gmabs.trainers.encoder_decoder import EncoderDecoder
from nnunet_gmabs.trainers.peer import Peer
from nnunet_gmabs.trainers.random_state import restore_generator, seed_of_rank

if TYPE_CHECKING:
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse as Base
else:
    Base = object


class MutualTeaching(Base):
    """L = L of the trainer it is mixed into + lambda r(progress) (L_image + L_feature), for both networks.

    class nnUNetTrainerX(MutualTeaching, nnUNetTrainerY): Y's objective for the student and for its peer, and each
    taught by the other. One step:

    - both networks label the unlabelled samples as the batch has them (the weak view), without gradients;
    - a strong view of the same geometry is drawn, the same for both;
    - one network after the other learns Y's terms and the other one's labels: on the strong view (L_image), and on
      the weak view with perturbed features (L_feature). Each term's backward pass comes before the next term's
      forward pass, so no more than one graph is alive.
    """

    peer: Peer

    @property
    def mutual_settings(self) -> MutualConfig:
        """Settings of the two terms."""
        assert self.config.mutual is not None
        return self.config.mutual

    @property
    def uses_unlabelled(self) -> bool:
        """Always."""
        return True

    def initialize(self) -> None:
        """Build the student as nnU-Net does, and a peer with other weights."""
        if self.label_manager.has_regions:
            raise NotImplementedError(
                f"{type(self).__name__} does not train region-based labels; use nnUNetTrainerMeanTeacher"
            )
        super().initialize()
        seed, fold = self.entropy
        self.peer = Peer(self, seed=2000 * seed + fold + 1)
        of_this_rank = seed_of_rank(seed, self.ranks.rank)
        self.views = torch.Generator(self.device).manual_seed(of_this_rank)
        self.choices = torch.Generator().manual_seed(of_this_rank)
        self.halves: dict[int, EncoderDecoder] = {}
        if self.mutual_settings.feature is not None:
            for module in (unwrap(self.network), self.peer.module):
                self.halves[id(module)] = EncoderDecoder(module, self._do_i_compile())

    def networks(self) -> dict[str, nn.Module]:
        """Those of the trainer, and the peer."""
        return {**super().networks(), "peer": self.peer.module}

    # ---- the objective

    @property
    def teaching(self) -> bool:
        """Whether the networks teach each other at this moment of the training."""
        return self.progress >= self.mutual_settings.ramp_start

    def learn(self, batch: dict[str, Any]) -> Tensor:
        """One step of both networks, each taught by what the other one knew before it; the mean of their losses."""
        self._weak = batch["data"][~batch["labelled"]]
        own, others = self._label(self.network), self._label(self.peer.network)
        self._strong, self._boxes = self._draw_strong_view()
        batch = self.own_samples(batch)
        first = self._learn_from(others, batch)
        with self.peer.in_place_of(self):
            second = self._learn_from(own, batch)
        return (first + second) / 2

    def _learn_from(self, taught: PseudoLabels | None, batch: dict[str, Any]) -> Tensor:
        self._taught = taught
        self.epoch_means.add(self._kept())
        return super().learn(batch)

    def own_samples(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The part of a batch that the trainer's own terms look at: all of it."""
        return batch

    def loss_parts(self, batch: dict[str, Any]) -> list[Callable[[], dict[str, Tensor]]]:
        """The trainer's own, and what the other network teaches."""
        parts = super().loss_parts(batch)
        if self.mutual_settings.image is not None:
            parts.append(lambda: {"mutual_image": self.image_term()})
        if self.mutual_settings.feature is not None:
            parts.append(lambda: {"mutual_feature": self.feature_term()})
        return parts

    def term_weights(self) -> dict[str, float]:
        """Both terms ramp up with the training's progress."""
        settings = self.mutual_settings
        weight = ramped(self.progress, settings.weight, settings.ramp_start, settings.ramp_end)
        on = {"mutual_image": settings.image, "mutual_feature": settings.feature}
        return {**super().term_weights(), **{name: weight for name, part in on.items() if part is not None}}

    def terms_without_sample(self, batch: dict[str, Any]) -> set[str]:
        """Also both terms, where no sample is unlabelled."""
        unlabelled = self.in_any_process(len(self._weak))
        return super().terms_without_sample(batch) | (set() if unlabelled else {"mutual_image", "mutual_feature"})

    @torch.no_grad()
    def _label(self, network: Any) -> PseudoLabels | None:
        """What a network says of the weak view; None when nothing is taught."""
        if not self.teaching:
            return None
        if not len(self._weak):  # no label, for no sample: other ranks may have some
            labels = torch.zeros(0, 1, *self._weak.shape[2:], dtype=torch.long, device=self.device)
            return PseudoLabels(labels, labels.bool())
        settings = self.mutual_settings
        confidence = confidence_threshold(self.progress, settings.confidence_start, settings.confidence)
        with self.autocast():
            logits = self.full_resolution(network(self._weak))
        return pseudo_labels(logits, confidence)

    def _draw_strong_view(self) -> tuple[Tensor | None, Tensor | None]:
        """The strong view with its CutMix boxes, the same for both networks; None when it is not needed."""
        settings = self.mutual_settings.image
        if settings is None or not self.teaching or not len(self._weak):
            return None, None
        strong = apply_strong_view(self._weak, draw_strong_view(self._weak, settings.strength, self.views))
        shape = tuple(self._weak.shape[2:])
        boxes = cutmix.draw_boxes(len(self._weak), shape, settings.cutmix, self.choices).to(self.device)
        return cutmix.apply_boxes(strong, boxes), boxes

    def image_term(self) -> Tensor:
        """L_image of the network in place: the other one's labels on the strong view."""
        if self._taught is None:
            return self._nothing()
        if self._strong is None or self._boxes is None:
            return self._nothing_but_others(self._taught)
        labels, kept = (cutmix.apply_boxes(x, self._boxes) for x in (self._taught.labels, self._taught.kept))
        logits = self.full_resolution(self.network(self._strong))
        return self._taught_loss(logits, PseudoLabels(labels, kept))

    def feature_term(self) -> Tensor:
        """L_feature of the network in place: the other one's labels on the weak view with perturbed features."""
        settings = self.mutual_settings.feature
        if self._taught is None or settings is None:
            return self._nothing()
        if not len(self._weak):
            return self._nothing_but_others(self._taught)
        halves = self.halves[id(unwrap(self.network))]
        features = halves.encode(self._weak)
        kinds: Any = settings.kinds.split("+")
        drawn = draw_feature_perturbations(features, kinds, settings.dropout, settings.noise, self.choices, self.views)
        perturbed = [apply_feature_perturbation(f, d) for f, d in zip(features, drawn, strict=True)]
        logits = self.full_resolution(halves.decode(perturbed))
        return self._taught_loss(logits, self._taught)

    def _taught_loss(self, logits: Tensor, taught: PseudoLabels) -> Tensor:
        settings = self.mutual_settings
        return mutual_loss(logits, taught, settings.dice_weight, settings.balanced, self.ranks.total)

    def _nothing_but_others(self, taught: PseudoLabels) -> Tensor:
        """The term where this rank has no sample for it: what the other ranks' samples make of it, if any has one."""
        classes = self.label_manager.num_segmentation_heads
        logits = torch.zeros(0, classes, *taught.labels.shape[2:], device=self.device)
        return self._nothing() + self._taught_loss(logits, taught)

    def _kept(self) -> dict[str, float]:
        """For the log: share of each class's voxels of which the teaching network is sure, and of all voxels."""
        if self._taught is None or not len(self._taught.labels):
            return {}
        shares = kept_shares(self._taught, self.label_manager.num_segmentation_heads)
        names = {f"share/kept_class_{label}": share for label, share in enumerate(shares)}
        return {"share/kept": float(self._taught.kept.float().mean()), **names}

    def _nothing(self) -> Tensor:
        """0 in the graph of the network in place: an optimiser's step needs gradients even where there is no sample."""
        return torch.stack([p.sum() for p in self.network.parameters()]).sum() * 0.0

    # ---- hooks of nnU-Net

    def on_train_epoch_start(self) -> None:
        """Also the peer's mode and learning rate."""
        super().on_train_epoch_start()
        self.peer.network.train()
        self.peer.lr_scheduler.step(self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        """Also the peer's mode."""
        super().on_validation_epoch_start()
        self.peer.network.eval()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Of both networks."""
        super().set_deep_supervision_enabled(enabled)
        decoder: Any = self.peer.module.decoder
        decoder.deep_supervision = enabled

    def epoch_summary(self) -> dict[str, float]:
        """Also the peer's means; its weights are the student's."""
        means = self.peer.epoch_means.take(self.ranks.gather)
        means = {name: value for name, value in means.items() if not name.startswith("weight/")}
        return {**super().epoch_summary(), **{f"{name}_peer": value for name, value in means.items()}}

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        """Also the peer's optimiser and where the generators stand."""
        generators = {"views": self.views.get_state(), "choices": self.choices.get_state()}
        return {**super().state(), "peer": self.peer.state(), "mutual_generators": generators}

    def load_state(self, state: dict[str, Any]) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        self.peer.load_state(state["peer"])
        restore_generator(self.views, state["mutual_generators"]["views"])
        restore_generator(self.choices, state["mutual_generators"]["choices"])
