"""Exemplars: the labelled scans whose objects are cut out for synthetic samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_gmabs.data.expert import expert_file, read_expert
from nnunet_gmabs.errors import InputError

Drawn = Mapping[str, Mapping[int, int]]


def drawn_voxels(pre: Path, data_identifier: str, identifiers: Sequence[str]) -> tuple[Drawn, set[str]]:
    """What is drawn on the training grid.

    Returns:
        For each scan the number of drawn voxels of each class that it shows, and the scans that are drawn everywhere.
    """
    drawn, dense = {}, set()
    for identifier in identifiers:
        labels, metadata = read_expert(expert_file(pre, data_identifier, identifier))
        drawn[identifier] = {int(label): int(n) for label, n in metadata["voxels"].items() if n}
        if sum(drawn[identifier].values()) == math.prod(labels.shape):
            dense.add(identifier)
    return drawn, dense


def find_exemplars(setting: str, drawn: Drawn, dense: Collection[str], classes: Mapping[str, int]) -> list[str]:
    """The scans that a setting means.

    Args:
        setting: names with blanks between them; "all" densely drawn scans; or "auto", those that choose_exemplars
            chooses among them.
        drawn: voxels of each class, by labelled training scan.
        dense: scans that are drawn everywhere.
        classes: foreground classes by name.

    Returns:
        Empty for "all" and "auto" where the densely drawn scans do not show every class: objects known on planes did
        harm where that was measured (docs/cmems.md), so they are pasted for those who name them.

    Raises:
        InputError: a named scan that is not among them, or a class that no exemplar, or no labelled scan at all, shows.
    """
    named = [] if setting in ("auto", "all") else setting.split()
    for name in named:
        if name not in drawn:
            raise InputError(
                f"synthetic.exemplars: {name!r} is no labelled training scan of this fold; "
                f"there are {', '.join(sorted(drawn))}"
            )
    unseen = _unseen(classes, [drawn[name] for name in named] if named else drawn.values())
    if unseen:
        where = f"none of {', '.join(named)}" if named else "no labelled training scan"
        raise InputError(
            f"synthetic.exemplars: {where} shows {', '.join(unseen)}; draw it in an exemplar, name one that shows it, "
            "or remove the class from dataset.json"
        )
    if named:
        return named
    candidates = {name: voxels for name, voxels in drawn.items() if name in dense}
    if _unseen(classes, candidates.values()):
        return []
    if setting == "auto":
        return choose_exemplars(candidates, list(classes.values()))
    return sorted(name for name, voxels in candidates.items() if any(voxels.get(c) for c in classes.values()))


def _unseen(classes: Mapping[str, int], drawn: Iterable[Mapping[int, int]]) -> list[str]:
    """Names of the classes that none of the scans shows."""
    seen = {label for voxels in drawn for label, number in voxels.items() if number}
    return [name for name, label in classes.items() if label not in seen]


def choose_exemplars(drawn: Drawn, classes: Sequence[int]) -> list[str]:
    """The scan that shows most classes, and more scans only while they show further classes.

    Ties go to the scan with more drawn foreground, then to the first name.

    Args:
        drawn: voxels of each class, by scan.
        classes: foreground classes.
    """
    chosen: list[str] = []
    missing = set(classes)
    while True:
        new = {name: missing & {c for c, n in voxels.items() if n} for name, voxels in drawn.items()}
        size = {name: sum(voxels.get(c, 0) for c in classes) for name, voxels in drawn.items()}
        best = min(new, key=lambda name: (-len(new[name]), -size[name], name), default=None)
        if best is None or not new[best]:
            return chosen
        chosen.append(best)
        missing -= new[best]
