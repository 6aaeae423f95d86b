"""docs/settings.md: every trainer and every setting, from the dataclasses, their docstrings and the trainer classes.

    python scripts/make_settings_page.py

A test fails where the committed page differs from what this makes.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from nnunet_gmabs import config, settings
from nnunet_gmabs.config import GMABSConfig
from nnunet_gmabs.nnunet_ext import gmabs_trainers

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
INTRODUCTION = """\
# Trainers and settings

Made by `scripts/make_settings_page.py` from [config.py](../nnunet_gmabs/config.py) and the trainer classes. Do not edit
it by hand: change the docstrings there, and run the script again.

Each trainer has settings of its own. They are replaced by name, first by `gmabs.yaml` beside the preprocessed
`dataset.json`, then by the file that the environment variable `{variable}` names (YAML or JSON):

```yaml
num_epochs: 300
consistency:
  weight: 0.3
relabel:
  max_unlabelled: 40
```

- Settings that the file does not name keep the trainer's own values, which can differ from the defaults below.
- An unknown name, a wrong type and a value out of range are refused before the training begins.
- Settings of a group that the trainer has switched off have no effect; the log says so.
- `null` switches a group off, but for {required}. A trainer refuses to be without a group that it is
  made for.
- A training goes on with `--c` only with the settings that it began with. {may_change}
  may change; `num_epochs` may only grow. A setting that an upgrade has brought stays as the trainer has it.
- "Paper" is GM-ABS, for `mutual` and `synthetic` CMEMS; "Ours" is a choice of this package.
"""
# What a trainer learns from, by the groups that are switched on; see learns_from for pseudo labels.
SOURCES = {
    "supervision": "drawn voxels",
    "synthetic": "objects of exemplars pasted into unlabelled scans",
    "consistency": "the teacher's labels of unlabelled samples",
    "mutual": "the other network's labels of unlabelled samples",
    "active": "planes that it asks for during the training",
}


# ---- what the source says


def field_docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, on one line; empty where there is none."""
    body = _class_node(kind).body
    found = {}
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = " ".join(str(below.value.value).split())
            found[node.target.id] = text
    return found


def ranges(kind: type) -> dict[str, str]:
    """Each field's range, as __post_init__ gives it to _check_range; other fields are left out."""
    found = {}
    for node in ast.walk(_class_node(kind)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_check_range":
            given = [eval(ast.unparse(argument), {"math": math}) for argument in node.args[1:]]
            named = {str(k.arg): eval(ast.unparse(k.value), {"math": math}) for k in node.keywords}
            call = inspect.signature(config._check_range).bind(None, *given, **named)
            call.apply_defaults()
            low, high, open_low, open_high = (call.arguments[n] for n in ("low", "high", "open_low", "open_high"))
            if high == math.inf:
                found[given[0]] = f"{'>' if open_low else '>='} {low}"
            else:
                found[given[0]] = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
    return found


def _class_node(kind: type) -> ast.ClassDef:
    [node] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    return node


def group_of(hint: Any) -> Any:
    """The dataclass in a field's type; None for a single value."""
    return next((t for t in (hint, *typing.get_args(hint)) if is_dataclass(t)), None)


def groups(kind: Any = GMABSConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and dataclass of every group of settings, a group before those inside it."""
    for name, hint in typing.get_type_hints(kind).items():
        if group_of(hint):
            yield prefix + name, group_of(hint)
            yield from groups(group_of(hint), f"{prefix}{name}.")


# ---- trainers


def trainers() -> list[Any]:
    """All trainer classes, a parent before those made of it, else by name."""
    classes = [getattr(gmabs_trainers, name) for name in gmabs_trainers.__all__]
    return sorted(classes, key=lambda c: [p.__name__ for p in reversed(c.__mro__) if p in classes])


def parent_of(trainer: Any) -> Any:
    """The trainer that this one is made of; None for the first."""
    return next((c for c in trainer.__mro__[1:] if c.__name__ in gmabs_trainers.__all__), None)


def learns_from(trainer: Any) -> str:
    """What a trainer learns from, in words."""
    own = trainer.config
    words = [text for name, text in SOURCES.items() if getattr(own, name) is not None]
    if own.noise_tolerant is not None:
        who = "the generalist, which the teacher prompts" if own.generalist else "the teacher, made in rounds"
        words.append(f"pseudo labels of {who}")
    return "; ".join(words)


def differences(new: Any, old: Any, prefix: str = "") -> list[str]:
    """One entry for each setting in which two dataclasses of one kind differ."""
    found = []
    for name, hint in typing.get_type_hints(type(new)).items():
        a, b = getattr(new, name), getattr(old, name)
        if group_of(hint) and a is not None:
            if b is None:
                found.append(f"`{prefix}{name}` switched on")
            found += differences(a, group_of(hint)() if b is None else b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"`{prefix}{name}` switched off" if group_of(hint) else f"`{prefix}{name}: {shown(a)}`")
    return found


# ---- Markdown


def shown(value: Any) -> str:
    """A value as it is written in a settings file."""
    return value if isinstance(value, str) else json.dumps(value)


def type_in_words(hint: Any) -> str:
    """A field's type, or the values that it can have."""
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    kinds = typing.get_args(hint) or (hint,)
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)


def settings_table(kind: Any) -> list[str]:
    """The single settings of one group."""
    texts, limits, hints = field_docstrings(kind), ranges(kind), typing.get_type_hints(kind)
    lines = ["| name | type or values | default | range | what it does |", "|---|---|---|---|---|"]
    for field in fields(kind):
        if not group_of(hints[field.name]):
            cells = [f"`{field.name}`", type_in_words(hints[field.name]), f"`{shown(field.default)}`"]
            cells += [limits.get(field.name, ""), texts[field.name]]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines if len(lines) > 2 else []


def trainer_lines(trainer: Any) -> list[str]:
    """One trainer's section."""
    text = inspect.cleandoc(trainer.__doc__).split("\n\n")[0].replace("\n", " ")
    parent = parent_of(trainer)
    changed = differences(trainer.config, parent.config if parent else GMABSConfig())
    what = f"Unlike `{parent.__name__}`" if parent else "Unlike the defaults below"
    lines = [f"### `{trainer.__name__}`", "", text, "", *wrapped(f"- Learns from: {learns_from(trainer)}.")]
    return [*lines, *wrapped(f"- {what}: {', '.join(changed)}."), ""]


def wrapped(text: str) -> list[str]:
    """Lines of at most 120 columns; those of a list's item are indented."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def settings_page() -> str:
    """The whole page."""
    free = [f"`{name}`" for name in settings.MAY_CHANGE if name != "num_epochs"]
    hints = typing.get_type_hints(GMABSConfig)
    required = [f"`{name}`" for name, hint in hints.items() if is_dataclass(hint)]
    words = {"required": " and ".join(required), "may_change": f"{', '.join(free[:-1])} and {free[-1]}"}
    lines = [*INTRODUCTION.format(variable=settings.ENVIRONMENT_VARIABLE, **words).splitlines(), "", "## Trainers", ""]
    for trainer in trainers():
        lines += trainer_lines(trainer)
    lines += ["## Settings", "", "### Without a group", "", *settings_table(GMABSConfig), ""]
    for name, kind in groups():
        users = [f"`{t.__name__}`" for t in trainers() if _has(t.config, name)]
        where = "all trainers" if len(users) == len(trainers()) else ", ".join(users)
        lines += [f"### `{name}`", "", inspect.cleandoc(kind.__doc__), "", *wrapped(f"Switched on in: {where}."), ""]
        table = settings_table(kind)
        lines += [*table, ""] if table else []
    return "\n".join(lines).rstrip() + "\n"


def _has(own: Any, dotted: str) -> bool:
    for name in dotted.split("."):
        own = None if own is None else getattr(own, name)
    return own is not None


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
    print(f"written: {PAGE}")
