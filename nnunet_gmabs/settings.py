"""Settings from files: fields of the configuration replaced by name, and compared when a training goes on."""

from __future__ import annotations

import difflib
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.errors import InputError

ENVIRONMENT_VARIABLE = "nnUNet_gmabs_config"
DATASET_FILE = "gmabs.yaml"
# between the runs of one training
MAY_CHANGE = (
    *("num_epochs", "save_every"),
    *("generalist.slices_at_once", "generalist.cache_gib", "generalist.accept_hours"),
)


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
        named = file == Path(os.environ.get(ENVIRONMENT_VARIABLE, ""))
        cure = f"correct {ENVIRONMENT_VARIABLE} or unset it" if named else "make it readable, or remove it"
        raise InputError(f"{file}: cannot be read ({error.strerror}); {cure}") from error
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
    """The valid name most like a wrong one: its last part counts first (it may be in the wrong place), as a word."""

    def likeness(valid: str) -> tuple[bool, list[float]]:
        last_parts = path.rsplit(".", 1)[-1], valid.rsplit(".", 1)[-1]
        alike = [difflib.SequenceMatcher(None, *pair).ratio() for pair in (last_parts, (path, valid))]
        return last_parts[0] in last_parts[1].split("_"), alike

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
    if float in allowed and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)  # YAML 1.1 takes 1e-3, without a point, for text; and 1.5e1, without a sign
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


def refuse_other_settings(
    stored: Mapping[str, Any], config: GMABSConfig, checkpoint: str, base: GMABSConfig
) -> list[str]:
    """Names of the settings that a checkpoint does not know yet, in a training that may go on.

    num_epochs may grow (the methods' schedules keep the length of the start); what changes no result, such as
    save_every and the slices in one call of an encoder, may change. A setting that is newer than the checkpoint must
    be as the trainer has it.

    Args:
        stored: settings of the training's start.
        config: settings now.
        checkpoint: its name, for the message.
        base: settings of the trainer class.

    Raises:
        InputError: naming each setting in which the resumed training would differ from its start.
    """
    old, new, own = flatten(stored), flatten(config), flatten(base)
    known = tuple(f"{name}." for name in old)  # groups that are switched off, too: what is in them is not newer
    newer = [name for name in sorted(new) if name not in MAY_CHANGE and not f"{name}.".startswith(known)]
    lines = [
        f"  {name}: {old.get(name, 'not there')!r} -> {new.get(name, 'not there')!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in MAY_CHANGE
        and (own if name in newer else old).get(name, "not there") != new.get(name, "not there")
    ]
    if new["num_epochs"] < old["num_epochs"]:
        lines.append(f"  num_epochs: {old['num_epochs']} -> {new['num_epochs']} (may only grow)")
    if lines:
        raise InputError(
            f"{checkpoint}: was trained with other settings:\n"
            + "\n".join(lines)
            + "\ngive the same settings to continue, or train anew without --c"
        )
    return newer
