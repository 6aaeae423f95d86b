"""The page: every section from its files, one template, one file written atomically."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from nnunet_gmabs import __version__
from nnunet_gmabs.annotation.exchange import class_names
from nnunet_gmabs.annotation.ledger import now
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import replace_atomically
from nnunet_gmabs.report.drawing import class_colour
from nnunet_gmabs.report.page import scans
from nnunet_gmabs.report.page.asked import read_rounds, readable_time
from nnunet_gmabs.report.page.asked_by_training import AskedByTraining, asked_by
from nnunet_gmabs.report.page.curves import Curves, model_curves, pseudo_dice_of_all
from nnunet_gmabs.report.page.reading import Damaged
from nnunet_gmabs.report.page.trainings import Training, by_model, compare_settings, names_apart, read_training
from nnunet_gmabs.report.page.truth import Predictions, class_values, names_of, points, truth_tables
from nnunet_gmabs.report.page.validation import also_trained_on
from nnunet_gmabs.wording import count


@dataclass(frozen=True)
class Inputs:
    """What the report is about.

    Attributes:
        raw: the data set.
        trainings: fold folders.
        predictions: folders to be scored.
        preprocessed: of the data set, for pseudo labels; None where it is not known.
        no_trainings: why there is none, one sentence for the reader.
        minutes_per_plane: a guess, for data sets where nobody measured it.
    """

    raw: RawFolder
    trainings: Sequence[Path] = ()
    predictions: Sequence[Predictions] = ()
    preprocessed: Path | None = None
    no_trainings: str = "No training of this data set was found."
    minutes_per_plane: float = 2.0


@dataclass(frozen=True)
class Model:
    """Folds of one model: curves, pictures of planes, and settings; seen: see also_trained_on, of the first fold."""

    folds: list[Training]
    curves: list[Curves]
    validation: list[scans.PlanePicture]
    seen: set[str] | None
    pseudo: list[scans.PlanePicture]
    agreement: list[tuple[str, list[float]]] = field(default_factory=list)

    @property
    def first(self) -> Training:
        """Whose name all have."""
        return self.folds[0]


def write_report(path: Path, inputs: Inputs) -> list[str]:
    """Write the page, replacing it atomically.

    Args:
        path: of the HTML file; its folder must exist.
        inputs: what it is about.

    Returns:
        Messages about files that could not be used, as the page names them.

    Raises:
        InputError: if the file cannot be written.
    """
    damaged = Damaged()
    html = render(gather(inputs, damaged))
    try:
        replace_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file with -o") from error
    return damaged.messages


def gather(inputs: Inputs, damaged: Damaged) -> dict[str, Any]:
    """All that the template shows; pictures are data addresses."""
    raw = inputs.raw
    classes = names_of(class_values(raw))
    shown = class_names(raw)
    asked = read_rounds(raw, damaged, inputs.minutes_per_plane)
    trainings = [read_training(folder, damaged) for folder in inputs.trainings]
    with_settings = [t for t in trainings if t.settings]
    labelled, planes, dense = scans.count_labels(raw, damaged)
    minutes_per_plane = asked.minutes_per_plane or asked.guess
    by_training = [a for t in trainings if (a := asked_by(raw, t, minutes_per_plane, damaged))]
    pictures = scans.asked_pictures(raw, asked.rounds, shown, damaged) or scans.label_pictures(raw, shown, damaged)
    seen = {t.folder: also_trained_on(raw, t, inputs.preprocessed, damaged) for t in trainings}
    models = [_model(inputs, folds, seen[folds[0].folder], shown, damaged) for folds in by_model(trainings)]
    differing, same = compare_settings(with_settings)
    return {
        "name": raw.folder.name,
        "folder": raw.folder,
        "made": readable_time(now()),
        "version": __version__,
        "scans": len(raw.scans()),
        "labelled": labelled,
        "planes": planes,
        "dense": dense,
        "classes": classes,
        "colours": {name: class_colour(value) for value, name in shown.items()},
        "asked": asked,
        "by_training": by_training,
        "pictures": pictures,
        "simulated_pictures": _simulated_pictures(raw, by_training, shown, damaged),
        "trainings": trainings,
        "seen": seen,
        "with_settings": names_apart(with_settings),
        "no_trainings": inputs.no_trainings,
        "overview": pseudo_dice_of_all(trainings),
        "models": models,
        "differing": differing,
        "same": same,
        "truth": truth_tables(raw, inputs.predictions, damaged),
        "has_truth": any((raw.folder / name).is_dir() for name in ("labelsTs", "labelsTr_dense")),
        "predictions": inputs.predictions,
        "damaged": damaged.messages,
    }


def render(content: Mapping[str, Any]) -> str:
    """The page. All text is escaped: names come from users."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(points=points, number=number, short=short, count=count)
    template = (files("nnunet_gmabs.report.page") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(**content)


def number(value: float | None, digits: int = 1) -> str:
    """A number for people; a dash for None and NaN.

    >>> number(2.345), number(None)
    ('2.3', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def short(value: float) -> str:
    """A number of any size for people, with three digits behind the point where they say something.

    >>> short(1653.0), short(0.33841), short(2.5)
    ('1653', '0.338', '2.5')
    """
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _model(
    inputs: Inputs, folds: list[Training], seen: set[str] | None, classes: Mapping[int, str], damaged: Damaged
) -> Model:
    validation = scans.validation_pictures(inputs.raw, folds[0], seen, classes, damaged)
    pseudo = scans.pseudo_pictures(inputs.raw, inputs.preprocessed, folds[0], classes, damaged)
    return Model(folds, model_curves(folds, classes), validation, seen, pseudo, _agreement(folds, classes))


def _simulated_pictures(
    raw: RawFolder, asked: Sequence[AskedByTraining], classes: Mapping[int, str], damaged: Damaged
) -> list[tuple[Training, list[scans.PlanePicture]]]:
    """Of each model the first fold's newest planes that a simulated expert drew."""
    first = {one.training.folder.parent: one for one in reversed(asked) if one.simulated}
    pictures = []
    for one in reversed(first.values()):
        rounds = [asked_once.round for asked_once in one.rounds]
        drawn = scans.asked_pictures(raw, rounds, classes, damaged, scans.MOST_SIMULATED)
        if drawn:
            pictures.append((one.training, drawn))
    return pictures


def _agreement(folds: Sequence[Training], classes: Mapping[int, str]) -> list[tuple[str, list[float]]]:
    """Rows: name, and for each fold the Dice of generalist and expert in the newest round."""
    from nnunet_gmabs.report.page.words import curve_name

    columns = list(dict.fromkeys(c for fold in folds for c in fold.columns(("round/expert_dice/",))))
    return [(curve_name(c, classes), [fold.last(c) for fold in folds]) for c in columns]
