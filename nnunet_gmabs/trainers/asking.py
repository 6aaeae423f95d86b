"""A training that asks an expert: it scores unlabelled scans, asks for planes, and learns from what arrives."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nnunet_gmabs.active.planes import body_mask, choose_planes
from nnunet_gmabs.active.select import ChosenScan, affordable_scans, select_scans
from nnunet_gmabs.annotation.experts import Folder, Simulated
from nnunet_gmabs.annotation.journal import require_writable
from nnunet_gmabs.annotation.ledger import now
from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
from nnunet_gmabs.annotation.requests import Request, RequestedScan, existing_rounds, read_request, request_scan
from nnunet_gmabs.annotation.rounds import next_round, open_planes
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json
from nnunet_gmabs.learning.schedules import rounds_due
from nnunet_gmabs.trainers.answers import TakesAnswers
from nnunet_gmabs.trainers.looking import LooksAtScans
from nnunet_gmabs.wording import count


class AsksExpert(LooksAtScans, TakesAnswers):
    """Mixin: at the end of some epochs (ActiveConfig) planes are asked for; scans that are answered become labelled.

    Of several processes all look at scans, and one asks and listens.
    """

    def initialize(self) -> None:
        """Also find the expert: without one, or where nobody can be asked, the training stops here."""
        self.asked = []
        self.answered = []
        self.unlabelled_before = []
        self.merged = set()
        self.asks_due = 0
        self.raw = RawFolder(find_raw_folder(self.plans_manager.dataset_name))
        self.first_round = next_round(self.raw)  # that this training may ask
        simulated = self.active_settings.expert == "simulated"
        if self.ranks.writes and not simulated:
            require_writable(self.raw.folder)
        self.expert = Simulated(self.raw, self.answers) if simulated else Folder(self.raw)
        super().initialize()

    @property
    def asked_file(self) -> Path:
        """What was asked, for the report: the requests, and how many epochs had been trained when each was made."""
        return Path(self.output_folder, "asked.json")

    # ---- when

    def on_train_start(self) -> None:
        """A new run forgets an older one's answers; a continued one asks what its kill has kept it from asking."""
        self.tell_if_nobody_is_asked()
        if self._resume_from is None:
            if self.ranks.writes:
                shutil.rmtree(self.answers, ignore_errors=True)
                self.asked_file.unlink(missing_ok=True)
            super().on_train_start()
            return
        if self.active_settings.expert == "person":
            self.adopt_rounds()
        self.restore_answers()
        super().on_train_start()
        self.ask_and_listen()

    def on_epoch_end(self) -> None:
        """Ask when it is time, and take up what has arrived."""
        super().on_epoch_end()
        if self.current_epoch < self.num_epochs:
            self.ask_and_listen()

    def questions_until(self, progress: float) -> int:
        """How many rounds of questions have fallen due at a moment of the training."""
        settings = self.active_settings
        return rounds_due(progress, settings.first, settings.every, settings.until)

    def tell_if_nobody_is_asked(self) -> None:
        """Say that no question will be due, or none that can be paid for."""
        settings = self.active_settings
        if not self.questions_until(self.last_progress):
            why = f"active.first ({settings.first}) and active.until ({settings.until}) leave no end of an epoch"
        elif settings.budget_planes < settings.planes_per_scan:
            why = f"active.budget_planes ({settings.budget_planes}) does not pay for one scan"
        else:
            return
        self.print_to_log_file(f"WARNING: nobody will be asked in this training: {why}; correct it to ask an expert")

    def ask_and_listen(self) -> None:
        """A round of questions where one is due, and all answers that are there."""
        due = self.questions_until(self.progress)
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
        settings, strategy = self.active_settings, self.strategy
        known = {scan["identifier"] for request in self.asked for scan in request["scans"]}
        waiting = self.waiting_for_a_person()
        candidates = [i for i in self.scans.unlabelled if i not in known and i not in waiting]
        spent = sum(len(scan["planes"]) for request in self.asked for scan in request["scans"])
        wanted = min(settings.scans_per_round, len(candidates))
        number = affordable_scans(wanted, settings.planes_per_scan, settings.budget_planes - spent)
        if not number:
            if waiting and not candidates:
                self.print_to_log_file(
                    f"nobody is asked: {count(len(waiting), 'scan waits', 'scans wait')} for an answer already"
                )
            return
        rng = np.random.default_rng((*self.entropy, len(self.asked)))
        looks = self.looks(candidates) if strategy.looks else {}
        asked_for = (known | waiting).intersection(self.scans.unlabelled)  # as good as labelled
        like = sorted({*self.scans.labelled, *asked_for}) if strategy.spread == "typical" else []
        known_features = [self.features(identifier) for identifier in like]
        chosen = select_scans(
            strategy,
            candidates,
            number,
            rng,
            [looks[i].score for i in candidates] if strategy.score else None,
            np.stack([looks[i].features for i in candidates]) if strategy.features else None,  # type: ignore[misc]
            np.stack(known_features) if known_features else None,
        )
        proposals = self.proposals([scan.identifier for scan in chosen])
        if self.ranks.writes:
            self.put(chosen, proposals, rng)
        self.asked = self.ranks.of_writer(self.asked)

    def waiting_for_a_person(self) -> set[str]:
        """Scans in which a person was asked already for planes that are not merged, by whomever."""
        waiting: set[str] = set()
        if self.ranks.writes and self.active_settings.expert == "person":
            with contextlib.suppress(InputError, OSError):  # put() will say what is damaged
                waiting = set(open_planes(self.raw))
        return self.ranks.of_writer(waiting)

    def put(self, chosen: list[ChosenScan], proposals: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        """Ask the expert for planes of the chosen scans."""
        settings, strategy = self.active_settings, self.strategy
        scans = tuple(self.planes_of(scan, proposals[scan.identifier], rng) for scan in chosen)
        request = Request(len(self.asked), now(), settings.strategy, self.config.seed, scans, str(self.output_folder))
        try:
            request = self.expert.ask(request, proposals if strategy.needs_model else None)
        except (InputError, OSError) as error:
            if settings.expert == "simulated":
                raise
            self.print_to_log_file(f"WARNING: nobody was asked; the next round asks again: {error}")
            return
        self.asked.append(asdict(request) | {"epochs_trained": self.current_epoch})
        write_json(self.asked_file, self.asked)
        for scan in scans:
            places = ", ".join(f"axis {plane.axis} index {plane.index_orig}" for plane in scan.planes)
            self.print_to_log_file(f"asked round {request.round}: {scan.identifier}, {places} ({scan.reason})")

    def planes_of(self, scan: ChosenScan, predicted: np.ndarray, rng: np.random.Generator) -> RequestedScan:
        """What to draw in one chosen scan, on its own grid."""
        strategy = self.strategy
        planes = choose_planes(
            predicted,
            self.active_settings.planes_per_scan,
            rng,
            how=strategy.planes,
            body=None
            if strategy.anywhere
            else self.on_own_grid(scan.identifier, body_mask(self.image(scan.identifier)[0])),
            spacing_mm=[float(s) for s in self.properties(scan.identifier)["spacing"]],
        )
        return request_scan(self.raw, scan, planes)

    def adopt_rounds(self) -> None:
        """Rounds that a person was asked after the checkpoint count as asked: nobody is asked twice.

        Where a training has few epochs, several rounds fall due at the end of one, and are asked as one.
        """
        known = {request["round"] for request in self.asked}
        epochs = {}
        if self.asked_file.is_file():
            told = json.loads(self.asked_file.read_text(encoding="utf-8"))
            epochs = {request["round"]: request["epochs_trained"] for request in told if "epochs_trained" in request}
        for number in existing_rounds(self.raw.folder):
            if number < self.first_round or number in known:
                continue
            request = read_request(self.raw.folder, number)
            if request.model == str(self.output_folder):
                trained = epochs.get(number, self.current_epoch)  # unknown where a kill came before it was written
                self.asked.append(asdict(request) | {"epochs_trained": trained})
                self.asks_due = max(self.asks_due + 1, self.questions_until(min(trained / self.schedule_epochs, 1.0)))

    # ---- checkpoints

    def state(self) -> dict:
        """Also what was asked and answered."""
        asking = {
            "asked": self.asked,
            "answered": self.answered,
            "asks_due": self.asks_due,
            "first_round": self.first_round,
            "unlabelled": self.scans.unlabelled,
        }
        return {**super().state(), "asking": asking}

    def load_state(self, state: dict) -> None:
        """Counterpart of state()."""
        super().load_state(state)
        asking = state["asking"]
        self.asked, self.answered, self.asks_due = asking["asked"], asking["answered"], asking["asks_due"]
        self.unlabelled_before, self.first_round = asking.get("unlabelled", []), asking.get("first_round", 0)
