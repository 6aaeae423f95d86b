"""splits_final.json of a data set: the user's is checked and left alone, ours follows the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_gmabs.data import splits
from nnunet_gmabs.data.cases import check_splits
from nnunet_gmabs.data.record import all_records, read_record, record_file
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import Rollback, replace_atomically, sha256, write_json
from nnunet_gmabs.wording import count


class SplitsFile:
    """The splits that nnU-Net's trainers read, and those that a user may have put beside the raw data.

    Ours are known by their hash in prepared.json: splits that anybody changed since are the user's.

    Args:
        raw: the raw data set.
        pre: the preprocessed data set.
        say: gets one line for each thing worth knowing.
    """

    def __init__(self, raw: Path, pre: Path, say: Callable[[str], None]) -> None:
        self.path = splits.splits_file(pre)
        self.in_raw = raw / splits.NAME
        self.pre, self.say = pre, say
        self._own = {record.get("splits_sha256") for record in all_records(pre)}

    def check(self, scans: Sequence[str], labelled: Sequence[str]) -> None:
        """Raise InputError if splits that the user made are wrong, or if there are two different ones."""
        for path in (self.in_raw, self.path):
            if path.is_file() and not self._is_own(path):
                check_splits(path, scans, labelled)
        if self.in_raw.is_file() and self.path.is_file() and not self._is_own(self.path):
            if not splits.agree(self.in_raw, self.path):
                raise InputError(f"{self.path}: differs from {self.in_raw}; remove the one that you do not want")

    def take_over(self, rollback: Rollback) -> None:
        """A user's splits in the raw data set go where nnU-Net's trainers look."""
        if self.in_raw.is_file() and (not self.path.is_file() or self._is_own(self.path)):
            rollback.remember(self.path)
            content = self.in_raw.read_bytes()
            replace_atomically(self.path, lambda temporary: temporary.write_bytes(content))

    def update(self, labelled: Sequence[str], data_identifiers: Sequence[str]) -> None:
        """Make folds over the labelled scans, or bring our own up to date, and record that they are ours."""
        if self.path.is_file() and not self._is_own(self.path):
            self.say(f"kept: {self.path} (yours)")
            named = {name for fold in splits.read_folds(self.path) for part in fold for name in fold[part]}
            if unused := sorted(set(labelled) - named):
                self.say(
                    f"warning: {self.path} has {', '.join(unused)} in no fold, so what is drawn there teaches nothing; "
                    'add them to "train", unless they are kept for tests'
                )
            return
        if self.path.is_file():
            folds = splits.update_folds(splits.read_folds(self.path), labelled)
        else:
            folds = splits.make_folds(labelled)
            self.say(f"made: {self.path}, {len(folds)} folds over the {len(labelled)} labelled scans")
        if len(labelled) < splits.FOLDS:
            self.say(
                f"only {count(len(labelled), 'scan is', 'scans are')} labelled: every fold trains and validates on "
                "all of them, so its validation says nothing about other scans"
            )
        elif any(set(fold["train"]) & set(fold["val"]) for fold in folds):
            self.say(
                f"{self.path} was made of fewer labelled scans and still validates on scans that are trained on; "
                "remove it and run gmabs prepare for folds that do not"
            )
        if not self.path.is_file() or folds != splits.read_folds(self.path):
            write_json(self.path, folds)
        digest = sha256(self.path)
        for data_identifier in data_identifiers:
            record = read_record(self.pre, data_identifier)
            if record["splits_sha256"] != digest:
                write_json(record_file(self.pre, data_identifier), record | {"splits_sha256": digest})

    def _is_own(self, path: Path) -> bool:
        return sha256(path) in self._own
