"""Which scans are shown, and from where the contours come: labels, proposals, predictions, pseudo labels, truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_gmabs.annotation.experts import DENSE_LABELS
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import answer_paths
from nnunet_gmabs.report.page.asked import DRAWN, MERGED, SIMULATED, Round
from nnunet_gmabs.report.page.asked_by_training import ANSWERS
from nnunet_gmabs.report.page.planes import Look, chosen_planes, draw_planes, look_at
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.page.trainings import Training
from nnunet_gmabs.report.page.validation import validated

MOST_ASKED, MOST_A_TRAINING, MOST_SIMULATED = 8, 2, 4


@dataclass(frozen=True)
class PlanePicture:
    """A picture of planes of one scan, and what is to be said about it."""

    identifier: str
    note: str
    address: str


def asked_pictures(
    raw: RawFolder, rounds: Sequence[Round], classes: Mapping[int, str], damaged: Damaged, most: int = MOST_ASKED
) -> list[PlanePicture]:
    """Scans of the newest rounds with drawn planes: the expert's areas, and the specialist's proposal from before."""
    pictures: list[PlanePicture] = []
    for one in reversed(rounds):
        for scan in one.scans:
            done = [p for p in scan.planes if p.state in DRAWN]
            if not done or len(pictures) == most:
                continue
            identifier = scan.asked.identifier
            labels = _answer_file(raw, one.folder, identifier, {p.state for p in done})
            lines = {}
            if scan.asked.proposal is not None:
                lines["specialist"] = one.folder / scan.asked.proposal
            look = _look(raw, identifier, labels, lines, damaged)
            if look is None:
                continue
            planes = chosen_planes(look, look.expert, [p.plane for p in done])
            proposed = _proposed(look, classes)
            address = damaged.read(labels, draw_planes, look, planes, classes)
            if address:
                pictures.append(PlanePicture(identifier, f"round {one.request.round}, {proposed}", address))
    return pictures


def _proposed(look: Look, classes: Mapping[int, str]) -> str:
    """What the model had said of a scan before it was drawn."""
    if "specialist" not in look.lines:
        return "no model was asked"
    found = np.isin(look.lines["specialist"], list(classes)).any()
    return "with the model's proposal from before" if found else "the model had found nothing in this scan"


def _answer_file(raw: RawFolder, folder: Path, identifier: str, states: set[str]) -> Path:
    """Where the drawn planes of one scan are; folder is the round's."""
    if states == {MERGED}:
        return raw.label_path(identifier)
    if states == {SIMULATED}:
        return folder / raw.label_path(identifier).name
    return answer_paths(folder, identifier, raw.file_ending)[0]


def label_pictures(raw: RawFolder, classes: Mapping[int, str], damaged: Damaged) -> list[PlanePicture]:
    """Some labelled scans as they are in labelsTr, for a data set without answered rounds."""
    pictures: list = []
    for identifier in raw.scans():
        path = raw.label_path(identifier)
        if not path.is_file() or len(pictures) == MOST_A_TRAINING:
            continue
        look = _look(raw, identifier, path, {}, damaged)
        if look is None or look.expert is None or bool((look.expert == raw.ignore_label).all()):
            continue
        planes = chosen_planes(look, look.expert, look.drawn())
        address = damaged.read(path, draw_planes, look, planes, classes)
        if address:
            pictures.append(PlanePicture(identifier, "labelled at the start", address))
    return pictures


def validation_pictures(
    raw: RawFolder, training: Training, seen: Collection[str] | None, classes: Mapping[int, str], damaged: Damaged
) -> list[PlanePicture]:
    """Validation scans of a training: what the finished network predicts, on planes that the expert drew.

    Of the scans in seen the network learned as well; None: nobody knows, and nothing is said.
    """
    pictures: list[PlanePicture] = []
    for path in validated(raw, training):
        identifier = path.name.removesuffix(raw.file_ending)
        if len(pictures) == MOST_A_TRAINING or identifier not in raw.scans():
            continue
        look = _look(raw, identifier, raw.label_path(identifier), {"specialist": path}, damaged)
        if look is None or "specialist" not in look.lines:
            continue
        planes = chosen_planes(look, look.expert, look.drawn()) if look.drawn() else \
            chosen_planes(look, look.lines["specialist"])  # fmt: skip
        address = damaged.read(path, draw_planes, look, planes, classes)
        if address:
            said = "" if seen is None else ", also trained on" if identifier in seen else ", not trained on"
            pictures.append(PlanePicture(identifier, f"validation scan{said}", address))
    return pictures


def pseudo_pictures(
    raw: RawFolder, pre: Path | None, training: Training, classes: Mapping[int, str], damaged: Damaged
) -> list[PlanePicture]:
    """Training scans with the pseudo labels of the newest round, unlabelled scans first; none without a round."""
    from nnunet_gmabs.data import pseudo_labels
    from nnunet_gmabs.data.cases import read_made_labels

    rounds = training.folder / "pseudo_labels"
    number = pseudo_labels.newest_round(rounds) if rounds.is_dir() else None
    if number is None or pre is None:
        return []
    folder = pseudo_labels.round_folder(rounds, number)
    known = set(raw.scans())
    names = [n for n in pseudo_labels.finished(rounds, number) if n in known]
    pictures: list[PlanePicture] = []
    made = damaged.read(raw.folder / "gmabs", read_made_labels, raw.folder) or {}
    drawn_in = {n: _expert_file(raw, training, n) for n in names}
    labelled = {n for n, path in drawn_in.items() if path.is_file() and not (n in made and path == raw.label_path(n))}
    for identifier in sorted(names, key=lambda n: (n in labelled, n)):
        if len(pictures) == MOST_A_TRAINING:
            break
        path = folder / f"{identifier}.b2nd"
        pseudo = damaged.read(path, _pseudo_on_own_grid, pre, training, number, identifier)
        if pseudo is None:
            continue
        truth = raw.label_path(identifier, DENSE_LABELS)
        look = _look(raw, identifier, drawn_in[identifier], {"truth": truth}, damaged, {"generalist": pseudo})
        if look is None:
            continue
        planes = chosen_planes(look, pseudo)
        address = damaged.read(path, draw_planes, look, planes, classes)
        if address:
            drawn = look.expert is not None and bool((look.expert != raw.ignore_label).any())
            kind = "partly drawn by the expert" if drawn else "unlabelled scan"
            pictures.append(PlanePicture(identifier, f"round {number} of relabelling, {kind}", address))
    return pictures


def _expert_file(raw: RawFolder, training: Training, identifier: str) -> Path:
    """What a simulated expert drew for this training, beside what is in labelsTr; else labelsTr's file."""
    own = training.folder / ANSWERS / raw.label_path(identifier).name
    return own if own.is_file() else raw.label_path(identifier)


def _pseudo_on_own_grid(pre: Path, training: Training, number: int, identifier: str) -> np.ndarray:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_gmabs.data import preprocessed
    from nnunet_gmabs.data.grid import labels_to_original_grid
    from nnunet_gmabs.data.pseudo_labels import read_pseudo_labels, round_folder

    plans = PlansManager(str(training.folder.parent / "plans.json"))
    configuration = plans.get_configuration(training.configuration)
    properties = preprocessed.properties(pre / configuration.data_identifier, identifier)
    labels = read_pseudo_labels(round_folder(training.folder / "pseudo_labels", number) / f"{identifier}.b2nd")[:]
    return labels_to_original_grid(labels, properties, plans, configuration)


def _look(
    raw: RawFolder,
    identifier: str,
    expert_file: Path,
    line_files: Mapping[str, Path],
    damaged: Damaged,
    lines: Mapping[str, np.ndarray] | None = None,
) -> Look | None:
    """A scan with the contours whose files are there; None where the scan itself cannot be read."""
    expert = _labels(raw, expert_file, damaged)
    found = {who: values for who, path in line_files.items() if (values := _labels(raw, path, damaged)) is not None}
    return damaged.read(expert_file, look_at, raw, identifier, expert, {**(lines or {}), **found})


def _labels(raw: RawFolder, path: Path, damaged: Damaged) -> np.ndarray | None:
    """Labels of a file; None where there is none, or it is damaged."""
    read = damaged.read(path, raw.read_labels, path) if path.is_file() else None
    return None if read is None else read[0]


def count_labels(raw: RawFolder, damaged: Damaged) -> tuple[int, int, int]:
    """Scans with anything drawn, planes drawn in those that are not drawn everywhere, scans drawn everywhere."""
    from nnunet_gmabs.annotation.planes import drawn_planes

    labelled = planes = dense = 0
    for identifier in raw.scans():
        path = raw.label_path(identifier)
        labels = _labels(raw, path, damaged)
        if labels is None:
            continue
        if raw.ignore_label is None or not (labels == raw.ignore_label).any():
            labelled, dense = labelled + 1, dense + 1
        elif (labels != raw.ignore_label).any():
            labelled, planes = labelled + 1, planes + len(drawn_planes(labels, raw.ignore_label))
    return labelled, planes, dense
