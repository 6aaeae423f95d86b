"""nnUNetTrainerGMABS: a mean teacher that also asks a frozen generalist for labels, and learns from them robustly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from nnunet_gmabs.config import GMABSConfig, NoiseTolerantConfig, RelabelConfig
from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist.relabel import Scans
from nnunet_gmabs.generalist.votes import Example
from nnunet_gmabs.learning.noise_tolerant import max_norm_for_classes, noise_tolerant_loss
from nnunet_gmabs.learning.schedules import noise_tolerant_weight, rounds_due
from nnunet_gmabs.presets import GM_ABS
from nnunet_gmabs.report.prompts import draw_prompts
from nnunet_gmabs.trainers import progress, relabelling
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher

ROUND_STATE = ("round", "round_finished", "rounds_due", "scans_of_round")


class nnUNetTrainerGMABS(nnUNetTrainerMeanTeacher):
    """L = L_supervised + w_con L_consistency + w_noise L_noise_tolerant.

    At the end of some epochs (RelabelConfig) the teacher prompts the generalist on the slices of every training scan,
    and the fused masks are pseudo labels until the next round (generalist/relabel.py). The student learns from them
    unless confident learning doubts them (learning/noise_tolerant.py).
    """

    config: GMABSConfig = GM_ABS

    @property
    def relabel_settings(self) -> RelabelConfig:
        """When there are rounds, and what they make."""
        assert self.config.relabel is not None
        return self.config.relabel

    @property
    def noise_settings(self) -> NoiseTolerantConfig:
        """Of the term that learns from pseudo labels."""
        assert self.config.noise_tolerant is not None
        return self.config.noise_tolerant

    @property
    def pseudo_labels(self) -> Path:
        """Folder of the rounds; the data loader takes the newest complete one."""
        return Path(self.output_folder, "pseudo_labels")

    def initialize(self) -> None:
        """Also load the generalist: a training that cannot use it stops here, not after hours."""
        if self.label_manager.has_regions:
            raise NotImplementedError(
                f"{type(self).__name__} does not train on regions; use nnUNetTrainerMeanTeacher, or labels without them"
            )
        if not self.label_manager.has_ignore_label:
            raise NotImplementedError(
                f"{type(self).__name__} needs an ignore label; this data set is labelled everywhere: use nnU-Net's own "
                "trainer, or gmabs sparsify for a trial"
            )
        self.require_reachable_prob()
        self.round, self.round_finished, self.rounds_due = 0, True, 0  # the last round begun, and whether it is done
        self.scans_of_round: list[str] | None = None
        self.answered: list[str] = []  # scans that have become labelled during the training (answers.py)
        self.relabeller = relabelling.build(self)
        super().initialize()

    def require_reachable_prob(self) -> None:
        """Raise InputError where logits cannot be clipped as the settings say, which the first round would find out."""
        prob = self.noise_settings.reachable_prob
        try:
            if prob is not None:
                max_norm_for_classes(self.label_manager.num_segmentation_heads, prob)
        except ValueError as error:
            raise InputError(f"noise_tolerant.{error}; correct it, or write null for no clipping") from error

    # ---- the objective

    def loss_terms(self, output: list[Tensor] | Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Also what the pseudo labels say, on the whole batch."""
        target = batch["target"]
        expert = target[0] if isinstance(target, list) else target
        noise_tolerant = self.noise_tolerant(self.full_resolution(output), batch["pseudo"], expert)
        return {**super().loss_terms(output, batch), "noise_tolerant": noise_tolerant}

    def noise_tolerant(self, logits: Tensor, pseudo: Tensor, expert: Tensor) -> Tensor:
        """The term for logits, pseudo labels and expert labels at full resolution; 0 before the first round."""
        if not self.round:
            return logits.sum() * 0.0
        loss, shares = noise_tolerant_loss(
            logits,
            pseudo,
            expert,
            self.label_manager.ignore_label,
            self.noise_settings.doubtful_as,
            self.noise_settings.reachable_prob,
            self.noise_settings.dice_weight,
            self.ranks.total,
        )
        self.epoch_means.add({f"share/{name}": float(value) for name, value in shares.items()})
        return loss

    def term_weights(self) -> dict[str, float]:
        """The noise-tolerant term begins with the first round, and fades."""
        settings = self.noise_settings
        weight = noise_tolerant_weight(self.progress, settings.weight, settings.final_share) if self.round else 0.0
        return {**super().term_weights(), "noise_tolerant": weight}

    # ---- rounds

    def run_training(self) -> None:
        """Say first what a round will cost; a training that would take too long changes no file of an older run."""
        if not self.was_initialized:
            self.initialize()
        if self.rounds_until(self.last_progress):
            relabelling.tell_cost(self)
        else:
            settings = self.relabel_settings
            self.print_to_log_file(
                "WARNING: no round of relabelling will be due, so that nothing is learned from pseudo labels; train "
                f"longer (num_epochs, num_iterations_per_epoch), or lower relabel.first ({settings.first}) and "
                f"relabel.first_iterations ({settings.first_iterations}), below relabel.until ({settings.until})"
            )
        super().run_training()

    def on_train_start(self) -> None:
        """A new run clears what an older one has left; a continued one makes up for what its kill has cut off."""
        if self._resume_from is None:
            if self.ranks.writes:
                pseudo_labels.clear_rounds(self.pseudo_labels)
            self.ranks.wait()
            super().on_train_start()
            return
        if self.ranks.writes:  # of a checkpoint that was newer, and cannot be read any more: not this training's labels
            pseudo_labels.remove_rounds_after(self.pseudo_labels, self.round)
        self.ranks.wait()
        super().on_train_start()
        relabeller = self.relabeller.on(self.scans_to_relabel())
        goes_on = self.current_epoch < self.num_epochs
        lost = self.ranks.of_writer(relabeller.missing(self.round) if self.round and goes_on else [])
        if lost and self.round_finished:
            self.print_to_log_file(
                f"WARNING: {pseudo_labels.round_folder(self.pseudo_labels, self.round)} lacks {lost[0]}"
                f"{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}; made again with the present teacher, so "
                "that this run will differ from an uninterrupted one"
            )
        if lost or (goes_on and not self.round_finished):
            self.run_round()
        self.relabel_if_due()

    def on_epoch_end(self) -> None:
        """A round where one is due."""
        super().on_epoch_end()
        self.relabel_if_due()

    def rounds_until(self, progress: float) -> int:
        """How many rounds have fallen due at a moment of the training."""
        settings = self.relabel_settings
        first = max(settings.first, settings.first_iterations / (self.schedule_epochs * self.num_iterations_per_epoch))
        return rounds_due(progress, first, settings.every, settings.until)

    def relabel_if_due(self) -> None:
        """A round between two checkpoints: the first says that it is on its way."""
        due = self.rounds_until(self.progress)
        if due > self.rounds_due and self.current_epoch < self.num_epochs:
            self.rounds_due, self.round, self.round_finished = due, self.round + 1, False
            scans = relabelling.training_scans(self)
            self.scans_of_round = [*scans.labelled, *scans.unlabelled]
            self.save_latest()
            self.run_round()

    def scans_to_relabel(self) -> Scans:
        """The training scans with which the round began: one may have been answered since that was not drawn for it."""
        scans = relabelling.training_scans(self)
        if self.scans_of_round is None:  # a checkpoint of an older version
            return scans
        of_round = set(self.scans_of_round)
        labelled, unlabelled = ([i for i in group if i in of_round] for group in (scans.labelled, scans.unlabelled))
        return replace(scans, labelled=labelled, unlabelled=unlabelled)

    def run_round(self) -> None:
        """Relabel the training scans; then the checkpoint names the round, and the one before it goes."""
        relabeller = self.relabeller.on(self.scans_to_relabel())
        try:
            figures, examples = relabelling.run_shared(
                relabeller, self.teacher_module, self.round, self._progress_bar, self.ranks
            )
        except OSError as error:
            self.print_to_log_file(
                f"WARNING: round {self.round} of relabelling failed ({error}); is the disk full? The training goes on "
                "with the labels before, and tries again in the next round"
            )
            if self.ranks.writes:
                pseudo_labels.remove_round(self.pseudo_labels, self.round)  # room for the next checkpoint
            self.ranks.wait()
            return
        self.round_finished = True
        self.print_to_log_file(
            f"relabelled, round {self.round}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        )
        if self.history:  # what had to be encoded depends on other trainings, and is no part of this one's state
            self.history[-1] |= {f"round/{name}": value for name, value in figures.items() if name != "encoded"}
        self.save_latest()
        if self.ranks.writes:
            self.close_round(examples)
        self.ranks.wait()

    def close_round(self, examples: Sequence[Example]) -> None:
        """Log and picture of a round that a checkpoint names; the round before is no longer needed."""
        progress.write_log(Path(self.output_folder), self.history)
        if examples:
            self.draw(examples)
        pseudo_labels.remove_rounds_before(self.pseudo_labels, self.round)

    def draw(self, examples: Sequence[Example]) -> None:
        """A picture of what the generalist saw; a training does not end for want of one."""
        path = Path(self.output_folder, f"prompts_round_{self.round:03d}.png")
        try:
            draw_prompts(path, examples)
        except Exception as error:
            self.print_to_log_file(f"WARNING: {path} could not be drawn ({error!r})")

    def _progress_bar(self, identifiers: Sequence[str]) -> Iterable[str]:
        hidden = None if self.ranks.writes else True
        return tqdm(identifiers, f"relabelling, round {self.round}", unit=" scans", leave=False, disable=hidden)

    # ---- checkpoints

    def state(self) -> dict:
        """Also which round the training learns from."""
        return {**super().state(), "rounds": {name: getattr(self, name) for name in ROUND_STATE}}

    def load_state(self, state: dict) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        for name in ROUND_STATE:
            setattr(self, name, state["rounds"].get(name))
