"""Which scans a fold learns from, with and without labels, and which it is validated on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from nnunet_gmabs.errors import InputError


@dataclass(frozen=True)
class FoldScans:
    """Identifiers, sorted; unlabelled ones are never in validation. Labelled ones of no part of a fold are left out."""

    labelled: list[str]
    unlabelled: list[str]
    validation: list[str]
    left_out: list[str] = field(default_factory=list)


def scans_of_fold(
    identifiers: Sequence[str], labelled: Collection[str], splits: Sequence[dict], fold: int | str, splits_file: str
) -> FoldScans:
    """The scans of a fold: labelled ones as splits_final.json says, and every unlabelled scan in training.

    Args:
        identifiers: all preprocessed scans.
        labelled: those with at least one drawn voxel on the training grid.
        splits: content of splits_final.json.
        fold: its index, or "all" (train and validate on every labelled scan).
        splits_file: its path, for error messages.

    Raises:
        InputError: no such fold, a name that is no scan, an unlabelled scan for validation, or no labelled
            scan for training.
    """
    labelled = set(labelled)
    if fold == "all":
        train = validation = sorted(labelled)
    else:
        if not 0 <= int(fold) < len(splits):
            raise InputError(
                f"{splits_file}: has folds 0 to {len(splits) - 1}, no fold {fold}; use one of those or 'all'"
            )
        train, validation = splits[int(fold)]["train"], splits[int(fold)]["val"]
    unknown = sorted({*train, *validation} - set(identifiers))
    if unknown:
        raise InputError(
            f"{splits_file}: names {unknown[0]!r}, which is not preprocessed; correct it or run gmabs prepare"
        )
    unusable = sorted(set(validation) - labelled)
    if unusable:
        raise InputError(
            f"{splits_file}: fold {fold} validates on {unusable[0]!r}, which has no labelled voxel; "
            "keep unlabelled scans out of 'val' (they join the training by themselves)"
        )
    if not labelled.intersection(train):
        raise InputError(
            f"{splits_file}: fold {fold} has no labelled scan for training; label one or correct the split"
        )
    unlabelled = set(identifiers) - labelled - set(validation)
    left_out = labelled.intersection(identifiers) - {*train, *validation}
    return FoldScans(sorted(labelled.intersection(train)), sorted(unlabelled), sorted(validation), sorted(left_out))
