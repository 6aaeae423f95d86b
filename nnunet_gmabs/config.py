"""Every setting with its default and where that comes from; files override fields by name."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnunet_gmabs.errors import InputError

ENVIRONMENT_VARIABLE = "nnUNet_gmabs_config"
DATASET_FILE = "gmabs.yaml"


def _check_range(owner: object, name: str, low: float, high: float = math.inf, open_low: bool = False) -> None:
    value = getattr(owner, name)
    if not (low < value <= high if open_low else low <= value <= high) or value == math.inf:
        raise ValueError(f"{name} is {value!r}, outside {'(' if open_low else '['}{low}, {high}]")


@dataclass(frozen=True)
class StreamsConfig:
    """What a batch is made of."""

    labelled_share: float = 0.5
    """Share of a batch from scans an expert has labelled. Paper: half labelled, half unlabelled."""
    unlabelled_from: float = 0.25
    """Share of the training in which batches are all labelled. Paper: 0. Ours: a teacher that knows nothing yet
    has nothing to say of unlabelled samples, and they would take the place of labelled ones."""
    batch_share: float = 1.0
    """Share of the plans' batch size that is used; 0.5 is the control with the labelled half alone."""

    def __post_init__(self) -> None:
        _check_range(self, "labelled_share", 0, 1, open_low=True)
        _check_range(self, "unlabelled_from", 0, 1)
        _check_range(self, "batch_share", 0, 1, open_low=True)


@dataclass(frozen=True)
class SupervisionConfig:
    """Learning from the voxels an expert has drawn."""

    dice_weight: float = 1.0
    """Ours: nnU-Net's Dice beside the cross-entropy. Paper: 0, cross-entropy alone."""
    cross_entropy_weight: float = 1.0
    cross_entropy_average: Literal["voxels", "samples"] = "voxels"
    """Ours: mean over all labelled voxels of the batch, as nnU-Net. Paper: per sample, then over samples."""

    def __post_init__(self) -> None:
        _check_range(self, "dice_weight", 0)
        _check_range(self, "cross_entropy_weight", 0)
        if self.dice_weight + self.cross_entropy_weight == 0:
            raise ValueError(
                "dice_weight and cross_entropy_weight are both 0; nothing would be learned from the expert"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """The exponential moving average of the student."""

    max_decay: float = 0.99
    """Decay min(1 - 1/(t+1), max_decay) after each step. Paper: 0.99."""

    def __post_init__(self) -> None:
        _check_range(self, "max_decay", 0, 1)


@dataclass(frozen=True)
class ConsistencyConfig:
    """What the student learns from the teacher on unlabelled samples."""

    form: Literal["confident", "mse"] = "confident"
    """mse: squared difference of probabilities (paper). confident: Dice + cross-entropy on the labels of which
    the teacher is sure (ours: the paper's form moves the student by 0.1 to 0.3 % of the supervised gradient)."""
    weight: float = 0.5
    """At full ramp. Paper: 0.1 with mse."""
    ramp_end: float = 0.6
    """Share of the training after which the sigmoid ramp, from unlabelled_from on, has reached 1. Paper: 0.6."""
    confidence: float = 0.8
    """confident: voxels whose highest teacher probability is above this are learned from. Ours."""
    noise_sd: float = 0.1
    """First view: Gaussian noise added to the normalised image. Paper: 0.1."""
    noise_limit: float = 0.2
    """... clipped to plus or minus this. Paper: 0.2."""
    log_gamma_limit: float = 0.3
    """Second view: sign(x) |x|^g with log g uniform within plus or minus this. Paper: 0.3."""

    def __post_init__(self) -> None:
        _check_range(self, "weight", 0)
        _check_range(self, "ramp_end", 0, 1, open_low=True)
        _check_range(self, "confidence", 0, 1)
        _check_range(self, "noise_sd", 0)
        _check_range(self, "noise_limit", 0)
        _check_range(self, "log_gamma_limit", 0)


@dataclass(frozen=True)
class GMABSConfig:
    """All settings of one training; a station that is None is switched off."""

    num_epochs: int = 1000
    """nnU-Net's own."""
    num_iterations_per_epoch: int = 250
    """nnU-Net's own."""
    num_val_iterations_per_epoch: int = 50
    """nnU-Net's own."""
    initial_lr: float = 1e-2
    """nnU-Net's own."""
    save_every: int = 50
    """Epochs between two checkpoint_latest.pth. nnU-Net's own."""
    seed: int = 0
    """Initial weights, patches and perturbations follow from it; on one CPU process without data workers exactly."""
    inference_network: Literal["teacher", "student"] = "teacher"
    """Which network stock nnU-Net predicts with. Released program: the student. Ours: the teacher."""
    streams: StreamsConfig = StreamsConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    teacher: TeacherConfig | None = TeacherConfig()
    consistency: ConsistencyConfig | None = ConsistencyConfig()

    def __post_init__(self) -> None:
        _check_range(self, "num_epochs", 1)
        _check_range(self, "num_iterations_per_epoch", 1)
        _check_range(self, "num_val_iterations_per_epoch", 1)
        _check_range(self, "initial_lr", 0, open_low=True)
        _check_range(self, "save_every", 1)
        _check_range(self, "seed", 0, 2**31 - 1)


SPARSE = GMABSConfig(
    inference_network="student", streams=StreamsConfig(labelled_share=1.0), teacher=None, consistency=None
)
"""Labelled scans only, one network."""

MEAN_TEACHER = GMABSConfig()
"""Labelled and unlabelled scans; the teacher's confident labels."""

MEAN_TEACHER_PAPER = replace(
    MEAN_TEACHER,
    streams=StreamsConfig(unlabelled_from=0.0),
    supervision=SupervisionConfig(dice_weight=0.0, cross_entropy_average="samples"),
    consistency=ConsistencyConfig(form="mse", weight=0.1),
)
"""The preset `paper`: GM-ABS's supervision and consistency as its released program intends them."""


def resolve(base: GMABSConfig, dataset_folder: str | os.PathLike | None) -> tuple[GMABSConfig, list[str]]:
    """Settings of a training: the trainer's own, then gmabs.yaml of the data set, then the file the user names.

    Args:
        base: settings of the trainer class.
        dataset_folder: the preprocessed data set (beside nnU-Net's dataset.json), or None.

    Returns:
        The settings, and one line for each file read or setting that this trainer has no use for.

    Raises:
        InputError: a file is missing or unreadable, or a field unknown, of wrong type or out of range.
    """
    files = []
    if dataset_folder is not None and (Path(dataset_folder) / DATASET_FILE).is_file():
        files.append(Path(dataset_folder) / DATASET_FILE)
    if os.environ.get(ENVIRONMENT_VARIABLE):
        files.append(Path(os.environ[ENVIRONMENT_VARIABLE]))
    notes: list[str] = []
    for file in files:
        base = override(base, read_file(file), str(file), notes)
        notes.append(f"settings read from {file}")
    return base, notes


def read_file(file: Path) -> dict[str, Any]:
    """Content of a YAML or JSON settings file as a dictionary; an empty file gives an empty one."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" and text.strip() else yaml.safe_load(text)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); correct {ENVIRONMENT_VARIABLE} or unset it"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{file}: neither YAML nor JSON ({error}); write one 'name: value' a line") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds {type(content).__name__}; write one 'name: value' a line")
    return content


def override(config: Any, values: Mapping[str, Any], source: str, notes: list[str], prefix: str = "") -> Any:
    """A dataclass with fields replaced by name, all names, types and ranges checked.

    Args:
        config: a frozen dataclass.
        values: field name to new value; a mapping for a station overrides fields inside it.
        source: file name for error messages.
        notes: gets a line for each setting of a station that the trainer has switched off.
        prefix: dotted path of config inside the whole, for error messages.
    """
    hints = typing.get_type_hints(type(config))
    changes = {}
    for name, value in values.items():
        path = prefix + str(name)
        if name not in hints:
            raise InputError(f"{source}: unknown setting {path!r}; the nearest valid one is {_nearest(path)!r}")
        station = _station(hints[name])
        if station is not None and isinstance(value, Mapping):
            current = getattr(config, name)
            checked = override(station() if current is None else current, value, source, notes, path + ".")
            if current is None:
                notes.append(f"{source}: {path} is switched off in this trainer; its settings there have no effect")
            else:
                changes[name] = checked
        else:
            changes[name] = _checked_type(value, hints[name], path, source)
    try:
        return replace(config, **changes)
    except ValueError as error:
        raise InputError(f"{source}: {prefix}{error}") from error


def _station(hint: Any) -> Any:
    """The dataclass in a field's type, None for a single value."""
    return next((t for t in (hint, *typing.get_args(hint)) if is_dataclass(t)), None)


def _all_names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings and stations below a dataclass."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        if _station(hint):
            yield from _all_names(_station(hint), f"{prefix}{name}.")


def _nearest(path: str) -> str:
    """The valid name most like a wrong one: its last part counts first, it may be in the wrong place."""

    def likeness(valid: str) -> tuple[float, float]:
        last_parts = path.rsplit(".", 1)[-1], valid.rsplit(".", 1)[-1]
        return difflib.SequenceMatcher(None, *last_parts).ratio(), difflib.SequenceMatcher(None, path, valid).ratio()

    return max(_all_names(GMABSConfig), key=likeness)


def _checked_type(value: Any, hint: Any, path: str, source: str) -> Any:
    """The value, an int made float where a float is asked for; InputError where it has another type."""
    if typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        raise InputError(f"{source}: {path} is {value!r}; valid are {', '.join(map(repr, typing.get_args(hint)))}")
    allowed = typing.get_args(hint) or (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if float in allowed and isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        return float(value)  # YAML 1.1 takes 1e-3, without a point, for text
    if type(value) in allowed:
        return value
    names = ", ".join(
        "null" if t is type(None) else "a group of settings" if is_dataclass(t) else t.__name__ for t in allowed
    )
    raise InputError(f"{source}: {path} is {value!r} ({type(value).__name__}); it must be {names}")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted field name to value for a dataclass or its dictionary; stations switched off map to None."""
    flat: dict[str, Any] = {}
    for name, value in (asdict(config) if is_dataclass(config) and not isinstance(config, type) else config).items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def refuse_other_settings(stored: Mapping[str, Any], config: GMABSConfig, checkpoint: str) -> None:
    """Raise InputError naming each setting in which a resumed training would differ from its start.

    num_epochs may grow (the methods' schedules keep the length of the start), save_every may change.
    """
    old, new = flatten(stored), flatten(config)
    lines = [
        f"  {name}: {old.get(name, 'not there')!r} -> {new.get(name, 'not there')!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in ("num_epochs", "save_every") and old.get(name, "not there") != new.get(name, "not there")
    ]
    if new["num_epochs"] < old["num_epochs"]:
        lines.append(f"  num_epochs: {old['num_epochs']} -> {new['num_epochs']} (may only grow)")
    if lines:
        raise InputError(
            f"{checkpoint}: was trained with other settings:\n"
            + "\n".join(lines)
            + "\ngive the same settings to continue, or train anew without --c"
        )
