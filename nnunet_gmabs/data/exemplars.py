"""Exemplars: the labelled scans whose objects are cut out for synthetic samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_gmabs.data.expert import expert_file, read_expert
from nnunet_gmabs.errors import InputError

Drawn = Mapping[str, Mapping[int, int]]


def drawn_voxels(pre: Path, data_identifier: str, identifiers: Sequence[str]) -> dict[str, dict[int, int]]:
    """For each scan the number of drawn voxels of each class that it shows, on the training grid."""
    metadata = {i: read_expert(expert_file(pre, data_identifier, i))[1] for i in identifiers}
    return {i: {int(label): int(n) for label, n in m["voxels"].items() if n} for i, m in metadata.items()}


def find_exemplars(setting: str, drawn: Drawn, classes: Mapping[str, int]) -> list[str]:
    """The scans that a setting means.

    Args:
        setting: names with blanks between them, "all", or "auto" (see choose_exemplars).
        drawn: voxels of each class, by labelled training scan.
        classes: foreground classes by name.

    Raises:
        InputError: a scan that is not among them, or a class that no exemplar shows.
    """
    chosen = choose_exemplars(drawn, list(classes.values())) if setting == "auto" else setting.split()
    if setting == "all":
        chosen = sorted(name for name, voxels in drawn.items() if any(voxels.get(c) for c in classes.values()))
    for name in chosen:
        if name not in drawn:
            raise InputError(
                f"synthetic.exemplars: {name!r} is no labelled training scan of this fold; "
                f"there are {', '.join(sorted(drawn))}"
            )
    unseen = [name for name, label in classes.items() if not any(drawn[scan].get(label) for scan in chosen)]
    if unseen:
        where = "no labelled training scan" if setting in ("auto", "all") else f"none of {', '.join(chosen)}"
        raise InputError(
            f"synthetic.exemplars: {where} shows {', '.join(unseen)}; draw it in an exemplar, name one that shows it, "
            "or remove the class from dataset.json"
        )
    return chosen


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
