"""Answers of an expert during a training: they become labels, and their scans labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_gmabs.annotation.experts import Arrived, Expert, Folder, Simulated
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.sources import Source
from nnunet_gmabs.data.expert import labelled_identifiers
from nnunet_gmabs.data.expert_build import write_expert
from nnunet_gmabs.data.follow import follow_labels
from nnunet_gmabs.data.streams import FoldScans
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.trainers import random_state
from nnunet_gmabs.trainers.loaders import labelled_scans, preprocessed_scans
from nnunet_gmabs.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_gmabs.wording import count


class TakesAnswers(nnUNetTrainerMeanTeacher):
    """Mixin: takes up what an expert has drawn.

    A simulated expert's answers lie in <output_folder>/expert and belong to this training. A person's are merged into
    labelsTr as soon as they arrive, whoever asked.

    Attributes:
        raw: the data set's raw folder.
        expert: who answers.
        asked: the requests, as dictionaries.
        answered: scans that have become labelled during this training.
        unlabelled_before: scans without labels when the checkpoint was written that this run continues.
        merged: scans whose labels were merged here, and are not on the training grid yet.
    """

    raw: RawFolder
    expert: Expert
    asked: list[dict[str, Any]]
    answered: list[str]
    unlabelled_before: list[str]
    merged: set[str]

    @property
    def answers(self) -> Path:
        """Folder of a simulated expert's answers."""
        return Path(self.output_folder, "expert")

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
        return FoldScans(sorted(labelled), sorted(unlabelled), scans.validation, scans.left_out)

    def take_answers(self) -> list[str]:
        """Bring what has arrived onto the training grid; the scans concerned.

        A labelled scan that the fold leaves out, for a test, stays out.
        """
        names = []
        if self.ranks.writes:
            simulated = isinstance(self.expert, Simulated)
            names = [self.take_simulated(a) for a in self.expert.poll()] if simulated else self.take_merged()
        names = self.ranks.of_writer(names)
        if names:
            before = self.scans
            new = self.known_scans().intersection(names) - {*before.labelled, *before.validation, *before.left_out}
            self.answered = sorted({*self.answered, *new})
            self.print_to_log_file(
                f"answered: {', '.join(sorted(names))}; {count(len(self.scans.labelled), 'scan is', 'scans are')} "
                "labelled now"
            )
        return names

    def take_simulated(self, answer: Arrived) -> str:
        """The answer as an expert file of this training alone."""
        self.build_own_expert_file(answer.identifier, answer.label_file)
        return answer.identifier

    def take_merged(self) -> list[str]:
        """A person's answers: merged here, or by `gmabs merge` beside this training."""
        folder, followed = Path(self.preprocessed_dataset_folder), set[str]()
        try:
            sources = [answer.source for answer in self.expert.poll() if answer.source is not None]
            for identifier in sorted({source.identifier for source in sources}):
                if self.merge_scan(identifier, sources):
                    self.merged.add(identifier)
            if self.merged:
                if folder.name not in follow_labels(self.raw, sorted(self.merged)):
                    self.print_to_log_file(
                        f"WARNING: answers are in labelsTr, but not all of them on the training grid in {folder}; "
                        f"run gmabs prepare -d {self.plans_manager.dataset_name}"
                    )
                followed, self.merged = self.merged, set()
        except (InputError, OSError, RuntimeError) as error:  # a disk that is away or full; blosc2 has no finer one
            self.print_to_log_file(f"WARNING: answers were not taken; they are looked at again later: {error}")
            self.expert = Folder(self.raw)  # reports anew what it has reported
        candidates = self.known_scans().intersection({*followed, *self.scans.unlabelled})
        return labelled_identifiers(folder.parent, folder.name, sorted(candidates))

    def merge_scan(self, identifier: str, sources: list[Source]) -> bool:
        """Merge what was drawn in one scan: where it contradicts what was drawn before, others need not wait for it."""
        try:
            merge(self.raw, lambda: [source for source in sources if source.identifier == identifier])
            return True
        except InputError as error:
            message = f"WARNING: what was drawn in {identifier} was not taken; it is looked at again later: {error}"
            self.print_to_log_file(message)
            self.expert = Folder(self.raw)
            return False

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
        """What came after the checkpoint: a person's answers that were merged, or taken back.

        A scan that was merged since is in no list of splits_final.json until `gmabs prepare` runs. A simulated expert
        gives the answers of the checkpoint again, if they are lost; what it answered later goes, for it will be asked.
        """
        if not isinstance(self.expert, Simulated):
            labelled = self.ranks.of_writer(labelled_scans(self)[1])
            self.answered = sorted({*self.answered, *self.unlabelled_before}.intersection(labelled))
            return
        planes = {
            scan["identifier"]: [(plane["axis"], plane["index_orig"]) for plane in scan["planes"]]
            for request in self.asked
            for scan in request["scans"]
        }
        for identifier in self.scans.unlabelled if self.ranks.writes else []:
            for name in (f"{identifier}_expert.b2nd", self.raw.label_path(identifier).name):
                (self.answers / name).unlink(missing_ok=True)
        for identifier in self.answered if self.ranks.writes else []:
            if not (self.answers / f"{identifier}_expert.b2nd").is_file():
                self.build_own_expert_file(identifier, self.expert.answer(identifier, planes[identifier]))
        self.ranks.wait()

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
