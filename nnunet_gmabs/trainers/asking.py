"""A training that asks an expert: it scores unlabelled scans, asks for planes, and learns from what arrives."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from tqdm import tqdm

from nnunet_gmabs.active.diversity import image_descriptor, intensity_histogram
from nnunet_gmabs.active.planes import INFORMATION, body_mask, choose_planes
from nnunet_gmabs.active.scores import disagreement, normalised_entropy, uncertain_fraction
from nnunet_gmabs.active.select import STRATEGIES, ChosenScan, affordable_scans, select_scans
from nnunet_gmabs.annotation.experts import Arrived, Expert, Folder, Simulated
from nnunet_gmabs.annotation.ledger import now
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
from nnunet_gmabs.annotation.requests import Request, RequestedScan, request_scan
from nnunet_gmabs.config import ActiveConfig
from nnunet_gmabs.data.expert import labelled_identifiers
from nnunet_gmabs.data.expert_build import write_expert
from nnunet_gmabs.data.follow import follow_labels
from nnunet_gmabs.data.grid import TrainingGrid, labels_to_original_grid
from nnunet_gmabs.data.streams import FoldScans
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically, write_json
from nnunet_gmabs.inference import SlidingWindows
from nnunet_gmabs.learning.schedules import rounds_due, uncertainty_threshold
from nnunet_gmabs.trainers import random_state
from nnunet_gmabs.trainers.distributed import unwrap
from nnunet_gmabs.trainers.loaders import labelled_scans, preprocessed_scans
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher


@dataclass(frozen=True)
class Look:
    """What is known of one unlabelled scan, on the training grid."""

    labels: np.ndarray
    score: float = 0.0
    features: np.ndarray | None = None


class AsksExpert(nnUNetTrainerMeanTeacher):
    """Mixin: at the end of some epochs (ActiveConfig) planes are asked for; scans that are answered become labelled.

    A simulated expert's answers lie in <output_folder>/expert and belong to this training. A person's are merged into
    labelsTr as soon as they arrive, whoever asked.
    """

    @property
    def active_settings(self) -> ActiveConfig:
        """Whom to ask, when, and for what."""
        assert self.config.active is not None
        return self.config.active

    def initialize(self) -> None:
        """Also find the expert: without one the training stops here."""
        if self.ranks.number > 1:
            raise NotImplementedError(
                f"{type(self).__name__} asks from one process; leave out -num_gpus, or train nnUNetTrainerGMABS"
            )
        self.asked: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.unlabelled_before: list[str] = []  # when the checkpoint was written that this run continues
        self.asks_due = 0
        self.raw = RawFolder(find_raw_folder(self.plans_manager.dataset_name))
        simulated = self.active_settings.expert == "simulated"
        self.expert: Expert = Simulated(self.raw, self.answers) if simulated else Folder(self.raw)
        super().initialize()

    @property
    def answers(self) -> Path:
        """Folder of a simulated expert's answers."""
        return Path(self.output_folder, "expert")

    @property
    def asked_file(self) -> Path:
        """What was asked, for the report: the requests, and how many epochs had been trained when each was made."""
        return Path(self.output_folder, "asked.json")

    @property
    def own_expert(self) -> Path | None:
        """The same, for those who read expert labels."""
        return self.answers

    @property
    def scans(self) -> FoldScans:
        """The fold's scans, those that were answered among the labelled ones."""
        scans = super().scans
        answered = set(self.answered) - set(scans.validation)
        labelled, unlabelled = answered | set(scans.labelled), set(scans.unlabelled) - answered
        return FoldScans(sorted(labelled), sorted(unlabelled), scans.validation)

    # ---- when

    def on_train_start(self) -> None:
        """A new run forgets an older one's answers; a continued one asks what its kill has kept it from asking."""
        if self._resume_from is None:
            shutil.rmtree(self.answers, ignore_errors=True)
            self.asked_file.unlink(missing_ok=True)
            super().on_train_start()
            return
        self.restore_answers()
        super().on_train_start()
        self.ask_and_listen()

    def on_epoch_end(self) -> None:
        """Ask when it is time, and take up what has arrived."""
        super().on_epoch_end()
        if self.current_epoch < self.num_epochs:
            self.ask_and_listen()

    def ask_and_listen(self) -> None:
        """A round of questions where one is due, and all answers that are there."""
        settings = self.active_settings
        due = rounds_due(self.progress, settings.first, settings.every, settings.until)
        asks, self.asks_due = due > self.asks_due, max(due, self.asks_due)
        if asks:
            self.ask()
        arrived = self.take_answers()
        if arrived:
            self.rebuild_loaders()
        if asks or arrived:
            self.save_latest()

    # ---- asking

    def ask(self) -> None:
        """Choose scans and planes by the strategy, and ask the expert; nothing when the budget is spent."""
        settings, strategy = self.active_settings, STRATEGIES[self.active_settings.strategy]
        known = {scan["identifier"] for request in self.asked for scan in request["scans"]}
        candidates = [i for i in self.scans.unlabelled if i not in known]
        spent = sum(len(scan["planes"]) for request in self.asked for scan in request["scans"])
        wanted = min(settings.scans_per_round, len(candidates))
        number = affordable_scans(wanted, settings.planes_per_scan, settings.budget_planes - spent)
        if not number:
            return
        rng = np.random.default_rng((*self.entropy, len(self.asked)))
        bar = tqdm(candidates, "looking for scans to ask for", unit=" scans", leave=False, disable=None)
        looks = {identifier: self.look(identifier) for identifier in bar}
        known_features = [self.features(i) for i in self.scans.labelled] if strategy.spread == "typical" else []
        chosen = select_scans(
            strategy,
            candidates,
            number,
            rng,
            [looks[i].score for i in candidates] if strategy.score else None,
            np.stack([looks[i].features for i in candidates]) if strategy.features else None,  # type: ignore[misc]
            np.stack(known_features) if known_features else None,
        )
        proposals = {
            scan.identifier: self.on_own_grid(scan.identifier, looks[scan.identifier].labels) for scan in chosen
        }
        scans = tuple(self.planes_of(scan, proposals[scan.identifier], rng) for scan in chosen)
        request = Request(len(self.asked), now(), settings.strategy, self.config.seed, scans, str(self.output_folder))
        try:
            request = self.expert.ask(request, proposals if strategy.needs_model else None)
        except InputError as error:
            if settings.expert == "simulated":
                raise
            self.print_to_log_file(f"WARNING: nobody was asked; the next round asks again: {error}")
            return
        self.asked.append(asdict(request) | {"epochs_trained": self.current_epoch})
        write_json(self.asked_file, self.asked)
        for scan in scans:
            places = ", ".join(f"axis {plane.axis} index {plane.index_orig}" for plane in scan.planes)
            self.print_to_log_file(f"asked round {request.round}: {scan.identifier}, {places} ({scan.reason})")

    def look(self, identifier: str) -> Look:
        """Score and describe one scan as the strategy wants it. The student scores (paper)."""
        strategy = STRATEGIES[self.active_settings.strategy]
        features = self.features(identifier) if strategy.features else None
        if not strategy.needs_model:
            return Look(np.zeros(self.image(identifier).shape[1:], np.uint8), features=features)
        probs = self.probs(unwrap(self.network), identifier)
        labels = probs.argmax(0).astype(np.uint8)
        score = 0.0
        if strategy.score == "uncertainty":
            score = uncertain_fraction(probs, uncertainty_threshold(self.progress))
        elif strategy.score == "disagreement":
            score = disagreement(labels, self.probs(self.teacher_module, identifier).argmax(0))
        return Look(labels, score, features)

    def features(self, identifier: str) -> np.ndarray:
        """Histograms of all channels, or a descriptor of the image."""
        image = self.image(identifier)
        if STRATEGIES[self.active_settings.strategy].features == "histogram":
            return np.concatenate([intensity_histogram(channel) for channel in image])
        grid = TrainingGrid.from_properties(self.properties(identifier), self.plans_manager, self.configuration_manager)
        return image_descriptor(image, grid.spacing)

    def planes_of(self, scan: ChosenScan, predicted: np.ndarray, rng: np.random.Generator) -> RequestedScan:
        """What to draw in one chosen scan, on its own grid."""
        strategy = STRATEGIES[self.active_settings.strategy]
        information = None
        if strategy.planes == INFORMATION:
            entropy = normalised_entropy(self.probs(unwrap(self.network), scan.identifier))
            information = self.on_own_grid(scan.identifier, entropy)
        planes = choose_planes(
            predicted,
            self.active_settings.planes_per_scan,
            rng,
            how=strategy.planes,
            information=information,
            body=None
            if strategy.anywhere
            else self.on_own_grid(scan.identifier, body_mask(self.image(scan.identifier)[0])),
            spacing_mm=[float(s) for s in self.properties(scan.identifier)["spacing"]],
        )
        return request_scan(self.raw, scan, planes)

    # ---- listening

    def take_answers(self) -> list[str]:
        """Bring what has arrived onto the training grid; the scans concerned."""
        if self.active_settings.expert == "simulated":
            names = [self.take_simulated(answer) for answer in self.expert.poll()]
        else:
            names = self.take_merged()
        if names:
            self.answered = sorted({*self.answered, *names} & self.known_scans())
            self.print_to_log_file(
                f"answered: {', '.join(sorted(names))}; {len(self.scans.labelled)} scans are labelled now"
            )
        return names

    def take_simulated(self, answer: Arrived) -> str:
        """The answer as an expert file of this training alone."""
        self.build_own_expert_file(answer.identifier, answer.label_file)
        return answer.identifier

    def take_merged(self) -> list[str]:
        """A person's answers: merged here, or by `gmabs merge` beside this training."""
        merged: set[str] = set()
        try:
            arrived = self.expert.poll()
            if arrived:
                merge(self.raw, lambda: [answer.source for answer in arrived if answer.source is not None])
                merged = {answer.identifier for answer in arrived}
                follow_labels(self.raw, sorted(merged))
        except InputError as error:
            self.print_to_log_file(f"WARNING: answers were not taken; they are looked at again later: {error}")
            self.expert = Folder(self.raw)  # reports anew what it has reported
        folder = Path(self.preprocessed_dataset_folder)
        return sorted(merged.union(labelled_identifiers(folder.parent, folder.name, self.scans.unlabelled)))

    def known_scans(self) -> set[str]:
        """Scans that are preprocessed, so that they can be trained on."""
        return set(preprocessed_scans(self))

    def build_own_expert_file(self, identifier: str, label_file: Path) -> None:
        """Expert labels of this training alone, on the training grid."""
        seg_file = Path(self.preprocessed_dataset_folder, f"{identifier}_seg.b2nd")
        managers = self.plans_manager, self.configuration_manager
        replace_atomically(
            self.answers / f"{identifier}_expert.b2nd",
            lambda path: write_expert(
                path, label_file, self.properties(identifier), seg_file, *managers, self.label_manager.ignore_label
            ),
        )

    def restore_answers(self) -> None:
        """What came after the checkpoint: a person's answers that were merged; a simulated expert's, if lost, again.

        A scan that was merged since is in no list of splits_final.json until `gmabs prepare` runs.
        """
        if not isinstance(self.expert, Simulated):
            _, labelled = labelled_scans(self)
            self.answered = sorted({*self.answered, *set(labelled).intersection(self.unlabelled_before)})
            return
        planes = {
            scan["identifier"]: [(plane["axis"], plane["index_orig"]) for plane in scan["planes"]]
            for request in self.asked
            for scan in request["scans"]
        }
        for identifier in self.answered:
            if not (self.answers / f"{identifier}_expert.b2nd").is_file():
                self.build_own_expert_file(identifier, self.expert.answer(identifier, planes[identifier]))

    def rebuild_loaders(self) -> None:
        """New streams; random numbers go on as if nothing had happened, so that a resume need not repeat it."""
        drawn = [loader.batches_drawn for loader in self._loaders_in_this_process()]
        before = random_state.capture(self.device)
        for augmenter in (self.dataloader_train, self.dataloader_val):
            finish = getattr(augmenter, "_finish", None)
            if finish is not None:
                finish()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        for loader, number in zip(self._loaders_in_this_process(), drawn, strict=True):
            loader.batches_drawn = number
        random_state.restore(before, self.device)

    # ---- scans on the training grid, and back

    def image(self, identifier: str) -> np.ndarray:
        """(channels, X, Y, Z), preprocessed."""
        return blosc2.open(urlpath=str(Path(self.preprocessed_dataset_folder, f"{identifier}.b2nd")), mode="r")[:]

    def properties(self, identifier: str) -> dict[str, Any]:
        """What nnU-Net's preprocessor stored for a scan."""
        with open(Path(self.preprocessed_dataset_folder, f"{identifier}.pkl"), "rb") as f:
            return pickle.load(f)

    def probs(self, network: torch.nn.Module, identifier: str) -> np.ndarray:
        """(C, X, Y, Z) of one network, which stays in the mode it was in."""
        training = network.training
        network.eval()
        image = torch.from_numpy(np.ascontiguousarray(self.image(identifier), np.float32))
        patch_size, half = self.configuration_manager.patch_size, self.config.cpu_bfloat16
        probs = SlidingWindows(image, network, patch_size, self.device, cpu_bfloat16=half).probs()
        network.train(training)
        return probs.numpy()

    def on_own_grid(self, identifier: str, values: np.ndarray) -> np.ndarray:
        """A map from the training grid on the scan's own."""
        managers = self.plans_manager, self.configuration_manager
        return labels_to_original_grid(values, self.properties(identifier), *managers)

    # ---- checkpoints

    def state(self) -> dict:
        """Also what was asked and answered."""
        asking = {
            "asked": self.asked,
            "answered": self.answered,
            "asks_due": self.asks_due,
            "unlabelled": self.scans.unlabelled,
        }
        return {**super().state(), "asking": asking}

    def load_state(self, state: dict) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        asking = state["asking"]
        self.asked, self.answered, self.asks_due = asking["asked"], asking["answered"], asking["asks_due"]
        self.unlabelled_before = asking.get("unlabelled", [])
