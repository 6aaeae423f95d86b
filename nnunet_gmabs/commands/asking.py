"""From a data set, and a model if there is one, to a request: candidates, scores, scans, planes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nnunet_gmabs.active.planes import INFORMATION, body_mask, choose_planes
from nnunet_gmabs.active.scores import disagreement, most_uncertain_region, normalised_entropy, uncertain_fraction
from nnunet_gmabs.active.select import STRATEGIES, ChosenScan, Strategy, affordable_scans, select_scans
from nnunet_gmabs.annotation.ledger import now
from nnunet_gmabs.annotation.merge import labels_now
from nnunet_gmabs.annotation.planes import Plane, drawn_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedScan, request_scan
from nnunet_gmabs.annotation.rounds import open_planes
from nnunet_gmabs.commands.looks import Look, Looks
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.learning.schedules import uncertainty_threshold

Progress = Callable[[Sequence[str]], Iterable[str]]


class Predicts(Protocol):
    """What is needed of a model, see commands.model."""

    @property
    def has_regions(self) -> bool:
        """Whether its outputs are regions instead of classes."""
        ...

    def predict_probabilities(self, image: np.ndarray, properties: dict[str, Any]) -> np.ndarray:
        """(C, X, Y, Z) on the scan's own grid."""
        ...

    def to_labels(self, probs: np.ndarray) -> np.ndarray:
        """(X, Y, Z) labels."""
        ...


@dataclass(frozen=True)
class AskOptions:
    """What is asked for.

    Attributes:
        strategy: name of one of active.select.STRATEGIES.
        scans: how many.
        planes: in each of them; an image of one slice (2D data) has one, so say 1 there if there is a budget.
        seed: of all draws.
        how: how planes are chosen, see active.planes; None means as the strategy says.
        labelled_too: also ask for more planes in scans that are labelled already.
        budget_planes: at most so many planes in this round; fewer scans then.
    """

    strategy: str
    scans: int
    planes: int = 3
    seed: int = 0
    how: str | None = None
    labelled_too: bool = False
    budget_planes: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("scans", 1), ("planes", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)}: must be at least {least}")
        if self.strategy not in STRATEGIES:
            raise InputError(f"--strategy {self.strategy}: must be one of {', '.join(STRATEGIES)}")


def make_request(
    raw: RawFolder,
    options: AskOptions,
    models: Sequence[Predicts] = (),
    model_name: str | None = None,
    progress: Progress = iter,
    looks: Looks | None = None,
) -> tuple[Request, dict[str, np.ndarray]]:
    """Choose scans and planes; writes no round.

    Args:
        raw: the data set.
        options: what is asked for.
        models: none, one, or for disagreement two.
        model_name: noted in the request.
        progress: wraps the loop over scans that are scored, such as a progress bar.
        looks: keeps what is found in each scan, and is asked first; None: all scans are looked at.

    Returns:
        The request (its round number is given when it is written), and for each scan the first model's labels.

    Raises:
        InputError: if a model is missing, or there are fewer scans to choose from than asked for.
    """
    strategy = STRATEGIES[options.strategy]
    candidates, labelled, number = _to_choose_from(raw, options, models)
    look = _Look(raw, strategy, models, looks)
    wanted = _wanted(strategy, candidates, labelled)
    for identifier in progress(list(wanted)) if wanted else ():
        look.at(identifier, score=wanted[identifier])
    scans = select_scans(
        strategy,
        list(candidates),
        number,
        np.random.default_rng(options.seed),
        [look.scores[i] for i in candidates] if strategy.score else None,
        np.stack([look.features[i] for i in candidates]) if strategy.features else None,
        np.stack([look.features[i] for i in labelled]) if strategy.spread == "typical" and labelled else None,
    )
    requested, proposals = [], {}
    for scan in scans:
        requested.append(_ask_in(raw, look, scan, options, candidates[scan.identifier]))
        if models:
            proposals[scan.identifier] = look.labels(scan.identifier)
    request = Request(0, now(), options.strategy, options.seed, tuple(requested), model_name)
    return request, proposals


def look_at_part(
    raw: RawFolder,
    options: AskOptions,
    models: Sequence[Predicts],
    looks: Looks,
    part: slice,
    progress: Progress = iter,
) -> int:
    """Look at the scans of one part that nobody has looked at yet; all else as make_request.

    Args:
        raw: the data set.
        options: what is asked for.
        models: as of make_request.
        looks: gets what is found.
        part: of all scans of the data set, so that it stays the same whatever is labelled meanwhile.
        progress: wraps the loop over scans.

    Returns:
        How many scans are left to other parts.

    Raises:
        InputError: as make_request.
    """
    strategy = STRATEGIES[options.strategy]
    candidates, labelled, _ = _to_choose_from(raw, options, models)
    wanted = _wanted(strategy, candidates, labelled)
    missing = {i for i, score in wanted.items() if looks.get(i, score) is None}
    look = _Look(raw, strategy, models, looks)
    for identifier in progress([i for i in raw.scans()[part] if i in missing]):
        look.at(identifier, wanted[identifier])
        look.forget_labels()
    return sum(looks.get(i, score) is None for i, score in wanted.items())


def _to_choose_from(
    raw: RawFolder, options: AskOptions, models: Sequence[Predicts]
) -> tuple[dict[str, list[Plane]], list[str], int]:
    """As find_candidates, and how many of the candidates are to be chosen."""
    _check_models(options, STRATEGIES[options.strategy], models)
    candidates, labelled = find_candidates(raw, options.labelled_too)
    number = affordable_scans(options.scans, options.planes, options.budget_planes)
    if number < 1:
        raise InputError(f"--budget {options.budget_planes}: not enough for one scan with {options.planes} planes")
    if number > len(candidates):
        raise InputError(
            f"{number} scans asked for, but only {len(candidates)} of {len(raw.scans())} are unlabelled and not asked "
            "for already; ask for fewer, merge open rounds, or say --labelled-too for more planes in labelled scans"
        )
    return candidates, labelled, number


def _wanted(strategy: Strategy, candidates: Iterable[str], labelled: Iterable[str]) -> dict[str, bool]:
    """The scans that are looked at before any is chosen, and whether each is scored."""
    if not strategy.looks:
        return {}
    known = labelled if strategy.spread == "typical" else ()
    return dict.fromkeys(candidates, strategy.score is not None) | dict.fromkeys(known, False)


def find_candidates(raw: RawFolder, labelled_too: bool = False) -> tuple[dict[str, list[Plane]], list[str]]:
    """Scans that may be asked for, with the planes drawn in them, and those that are labelled or asked for already."""
    waiting = open_planes(raw)
    candidates: dict[str, list[Plane]] = {}
    others = []
    for identifier in raw.scans():
        path = raw.label_path(identifier)
        labels = raw.read_labels(path)[0] if path.is_file() else None
        ignore_label = raw.dataset_json_with_ignore()[1]
        labelled = labels is not None and bool((labels != ignore_label).any())
        drawn = drawn_planes(labels, ignore_label) if labels is not None and labelled else []
        if identifier in waiting or (labelled and not (labelled_too and (labels == ignore_label).any())):  # type: ignore[union-attr]
            others.append(identifier)
        else:
            candidates[identifier] = drawn
    return candidates, others


class _Look:
    """What scans look like, to the eye and to the models; one scan in memory at a time."""

    def __init__(
        self, raw: RawFolder, strategy: Strategy, models: Sequence[Predicts], looks: Looks | None = None
    ) -> None:
        self.raw, self.strategy, self.models, self.looks = raw, strategy, models, looks
        self.scores: dict[str, float] = {}
        self.features: dict[str, np.ndarray] = {}
        self._labels: dict[str, tuple[bytes, tuple[int, ...]]] = {}  # compressed: a hundred scans are kept

    def at(self, identifier: str, score: bool) -> None:
        """Score and describe one scan, as far as the strategy wants it; or read what was found there before."""
        look = self.looks.get(identifier, score) if self.looks else None
        if look is None:
            self._look_at(identifier, score)
            if self.looks:
                self.looks.put(identifier, Look(self.scores.get(identifier), self.features.get(identifier)))
            return
        if look.score is not None:
            self.scores[identifier] = look.score
        if look.features is not None:
            self.features[identifier] = look.features

    def forget_labels(self) -> None:
        """Keep no labels in memory."""
        self._labels.clear()

    def read(self, identifier: str) -> tuple[np.ndarray, dict[str, Any]]:
        """As RawFolder.read_image.

        Raises:
            InputError: also if a value is NaN or infinite, which no score and no description survives.
        """
        image, properties = self.raw.read_image(identifier)
        if not np.isfinite(image).all():
            bad = np.argwhere(~np.isfinite(image))
            channel, *place = (int(i) for i in bad[0])
            files = self.raw.images_of(identifier)
            raise InputError(
                f"{files[min(channel, len(files) - 1)]}: {(bad[:, 0] == channel).sum()} voxels are no finite number, "
                f"such as {image[tuple(bad[0])]} at {tuple(place)}; export the scan again, or write the value of "
                "background there (numpy.nan_to_num)"
            )
        return image, properties

    def _look_at(self, identifier: str, score: bool) -> None:
        image, properties = self.read(identifier)
        if self.strategy.features:
            self.features[identifier] = self.strategy.describe(image, properties["spacing"])
        if score and self.strategy.score == "uncertainty":
            probs = self._predict(identifier, image, properties)
            self.scores[identifier] = uncertain_fraction(probs, uncertainty_threshold(1.0))
        elif score and self.strategy.score == "disagreement":
            self._predict(identifier, image, properties)
            other = self.models[1].to_labels(self.models[1].predict_probabilities(image, properties))
            self.scores[identifier] = disagreement(self.labels(identifier), other)

    def labels(self, identifier: str) -> np.ndarray:
        """(X, Y, Z) labels of the first model."""
        if identifier not in self._labels:
            self._predict(identifier, *self.read(identifier))
        packed, shape = self._labels[identifier]
        return np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(shape)

    def entropy(self, identifier: str) -> np.ndarray:
        """(X, Y, Z) normalised entropy of the first model."""
        return normalised_entropy(self._predict(identifier, *self.read(identifier)))

    def _predict(self, identifier: str, image: np.ndarray, properties: dict[str, Any]) -> np.ndarray:
        """Probabilities that sum to 1; the labels are kept."""
        probs = self.models[0].predict_probabilities(image, properties)
        labels = self.models[0].to_labels(probs).astype(np.uint8)
        self._labels[identifier] = zlib.compress(labels.tobytes(), 1), labels.shape
        return most_uncertain_region(probs) if self.models[0].has_regions else probs


def _ask_in(
    raw: RawFolder, look: _Look, scan: ChosenScan, options: AskOptions, drawn: Sequence[Plane]
) -> RequestedScan:
    """The planes of one chosen scan."""
    strategy = STRATEGIES[options.strategy]
    labels_now(raw, scan.identifier)  # what does not lie on the image would be refused when the answer is merged
    image, properties = look.read(scan.identifier)
    shape = image.shape[1:]
    how = options.how or strategy.planes
    predicted = look.labels(scan.identifier) if look.models and not strategy.anywhere else np.zeros(shape, int)
    planes = choose_planes(
        predicted,
        options.planes,
        # its own generator for each scan: which planes it gets does not depend on the other scans
        np.random.default_rng([options.seed, *scan.identifier.encode()]),
        drawn,
        how,
        look.entropy(scan.identifier) if how == INFORMATION else None,
        None if strategy.anywhere else body_mask(image[0]),
        [float(s) for s in properties["spacing"]],
    )
    return request_scan(raw, scan, planes)


def _check_models(options: AskOptions, strategy: Strategy, models: Sequence[Predicts]) -> None:
    if strategy.needs_model and not models:
        raise InputError(
            f"--strategy {options.strategy} asks a model: give --from MODEL_FOLDER, or take --strategy cold-start"
        )
    if strategy.score == "disagreement" and len(models) < 2:
        raise InputError(
            "--strategy disagreement compares two models: give --against MODEL_FOLDER, or a --from folder with at "
            "least two folds"
        )
    if options.how == INFORMATION and not models:
        raise InputError("--plane-choice information asks a model: give --from MODEL_FOLDER")
