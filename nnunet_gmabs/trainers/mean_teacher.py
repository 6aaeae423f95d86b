"""nnUNetTrainerMeanTeacher: the student also learns from its own moving average, on unlabelled scans."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_gmabs.config import ConsistencyConfig, GMABSConfig, TeacherConfig
from nnunet_gmabs.learning import cutmix, perturb
from nnunet_gmabs.learning.consistency import confident_consistency, probability_consistency, to_probs
from nnunet_gmabs.learning.ema import teacher_decay, update_teacher
from nnunet_gmabs.learning.schedules import ramped
from nnunet_gmabs.presets import MEAN_TEACHER
from nnunet_gmabs.trainers.base import nnUNetTrainerSparse
from nnunet_gmabs.trainers.distributed import unwrap
from nnunet_gmabs.trainers.random_state import restore_generator, seed_of_rank


class nnUNetTrainerMeanTeacher(nnUNetTrainerSparse):
    """L = L_supervised + w r((progress - start) / (end - start)) L_consistency, r the sigmoid ramp.

    A share of each batch is unlabelled. There the teacher sees two perturbed copies, noise and gamma,
    and the student learns what it makes of them (learning/consistency.py). After each step the teacher moves
    towards the student (learning/ema.py).
    """

    config: GMABSConfig = MEAN_TEACHER
    inference_networks = ("student", "teacher")

    @property
    def consistency_settings(self) -> ConsistencyConfig:
        """Settings of the unsupervised term."""
        assert self.config.consistency is not None
        return self.config.consistency

    def initialize(self) -> None:
        """Build the student as nnU-Net does, and a teacher that starts as its copy."""
        super().initialize()
        seed = seed_of_rank(self.config.seed, self.ranks.rank)
        self.perturbations = torch.Generator(self.device).manual_seed(seed)
        self.mixing = torch.Generator().manual_seed(seed)
        self.teacher_module = deepcopy(unwrap(self.network)).requires_grad_(False).eval()
        self.teacher: Any = torch.compile(self.teacher_module) if self._do_i_compile() else self.teacher_module

    def networks(self) -> dict[str, nn.Module]:
        """Student and teacher."""
        return {**super().networks(), "teacher": self.teacher_module}

    @property
    def validated_networks(self) -> dict[str, nn.Module]:
        """Student and teacher."""
        return {**super().validated_networks, "teacher": self.teacher}

    # ---- the objective

    def learn(self, batch: dict[str, Any]) -> Tensor:
        """Where the settings say so, the student sees unlabelled samples mixed with labelled ones."""
        return super().learn(self.mixed(batch) if self.consistency_settings.mix_side else batch)

    def mixed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with each unlabelled sample mixed with a labelled one (learning/cutmix.py), if it has any.

        Image and target of the one outside of "own", (B, 1, X, Y[, Z]) bool, are those of the other; pseudo labels are
        unknown there. The images as they were are "unmixed".
        """
        labelled, unlabelled = (torch.nonzero(kind).flatten().cpu() for kind in (batch["labelled"], ~batch["labelled"]))
        if not len(labelled) or not len(unlabelled):
            return batch
        partner = torch.arange(len(batch["data"]))
        partner[unlabelled] = labelled[torch.randint(len(labelled), unlabelled.shape, generator=self.mixing)]
        own = torch.ones_like(batch["data"][:, :1], dtype=torch.bool)
        shape, side = tuple(own.shape[2:]), self.consistency_settings.mix_side
        own[unlabelled] = cutmix.draw_own_parts(len(unlabelled), shape, side, self.mixing).to(own.device)

        def mix(values: Tensor) -> Tensor:
            inside = own if values.shape[2:] == own.shape[2:] else F.interpolate(own.float(), values.shape[2:]).bool()
            return torch.where(inside, values, values[partner])

        target = batch["target"]
        target = [mix(t) for t in target] if isinstance(target, list) else mix(target)
        batch = {**batch, "unmixed": batch["data"], "own": own, "data": mix(batch["data"]), "target": target}
        if "pseudo" in batch:
            batch["pseudo"] = batch["pseudo"].masked_fill(~own, self.label_manager.ignore_label)
        return batch

    def loss_terms(self, output: list[Tensor] | Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Supervised term on what is drawn, consistency on the unlabelled samples."""
        unlabelled = ~batch["labelled"]
        image, own = batch.get("unmixed", batch["data"])[unlabelled], batch.get("own")
        own = None if own is None else own[unlabelled]
        consistency = self.consistency(self.full_resolution(output)[unlabelled], image, own)
        return {**super().loss_terms(output, batch), "consistency": consistency}

    def terms_without_sample(self, batch: dict[str, Any]) -> set[str]:
        """Also the consistency, where no sample is unlabelled."""
        unlabelled = self.in_any_process(int((~batch["labelled"]).sum()))
        return super().terms_without_sample(batch) | (set() if unlabelled else {"consistency"})

    def term_weights(self) -> dict[str, float]:
        """The consistency ramps up with the training's progress."""
        settings = self.consistency_settings
        weight = ramped(self.progress, settings.weight, settings.ramp_start, settings.ramp_end)
        return {**super().term_weights(), "consistency": weight}

    def consistency(self, logits: Tensor, image: Tensor, own: Tensor | None = None) -> Tensor:
        """The unsupervised term for the student's logits of unlabelled images, where it saw their own part of them."""
        settings, regions = self.consistency_settings, self.label_manager.has_regions
        if self.progress < settings.ramp_start:
            return logits.sum() * 0.0
        # another rank may have unlabelled samples where this one has none, and waits for this one's share of the sums
        views = self.teacher_views(image) if len(image) else 2 * [to_probs(logits.detach(), regions)]
        if settings.form == "mse":
            return probability_consistency(logits, views, regions, self.ranks.total)
        loss, kept = confident_consistency(logits, views, settings.confidence, regions, self.ranks.total, own)
        if len(image):
            self.epoch_means.add({"share/confident_voxels": float(kept)})
        return loss

    @torch.no_grad()
    def teacher_views(self, image: Tensor) -> list[Tensor]:
        """The teacher's probabilities for a noisy and a gamma-transformed copy: two (B, C, X, Y[, Z])."""
        settings = self.consistency_settings
        noise = perturb.draw_noise(image, settings.noise_sd, settings.noise_limit, self.perturbations)
        log_gamma = perturb.draw_log_gamma(image, settings.log_gamma_limit, self.perturbations)
        both = torch.cat([perturb.apply_noise(image, noise), perturb.apply_gamma(image, log_gamma)])
        return list(to_probs(self.full_resolution(self.teacher(both)), self.label_manager.has_regions).chunk(2))

    def after_step(self) -> None:
        """The teacher follows the student."""
        assert isinstance(self.config.teacher, TeacherConfig)
        decay = teacher_decay(self.iteration, self.config.teacher.max_decay)
        update_teacher(self.teacher_module, unwrap(self.network), decay)

    # ---- checkpoints

    def state(self) -> dict:
        """Also where the generators of perturbations and of mixing stand."""
        generators = {"perturbations": self.perturbations.get_state(), "mixing": self.mixing.get_state()}
        return {**super().state(), **generators}

    def load_state(self, state: dict) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        restore_generator(self.perturbations, state["perturbations"])
        if "mixing" in state:  # not in a checkpoint of an older version
            restore_generator(self.mixing, state["mixing"])
