"""Rounds: written so that they appear complete or not at all, and which of them still wait for an answer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_gmabs.annotation.exchange import EDITOR_FORMATS, write_for_editors
from nnunet_gmabs.annotation.journal import changing, tell_of_rounds
from nnunet_gmabs.annotation.ledger import merged_now, planes_of, read_events
from nnunet_gmabs.annotation.planes import Plane
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import (
    Request,
    existing_rounds,
    read_request,
    requests_folder,
    round_folder,
    write_request,
)
from nnunet_gmabs.files import sync_folder


def write_round(raw: RawFolder, request: Request, proposals: Mapping[str, np.ndarray] | None = None) -> Request:
    """Write a new round: the request, the specialist's proposals, and folders for other programs.

    Args:
        raw: the data set; dataset.json gets an ignore label if it has none.
        request: what to ask; its round number and the proposals of its scans are filled in here.
        proposals: (X, Y, Z) labels of scans for which there is a prediction.

    Returns:
        The request as written.

    Raises:
        InputError: if a scan does not exist, or another process is changing the data set.
    """
    proposals = proposals or {}
    with changing(raw.folder):
        raw = with_ignore_label(raw)
        number = next_round(raw)
        scans = tuple(
            replace(scan, proposal=f"proposals/{scan.identifier}{raw.file_ending}")
            if scan.identifier in proposals
            else replace(scan, proposal=None)
            for scan in request.scans
        )
        request = replace(request, round=number, scans=scans)
        unfinished = requests_folder(raw.folder) / f".round_{number:03d}"
        unfinished.mkdir(parents=True)
        try:
            _fill(raw, unfinished, request, proposals)
            os.replace(unfinished, round_folder(raw.folder, number))
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        sync_folder(requests_folder(raw.folder))
        tell_of_rounds(raw.folder)
    return request


def next_round(raw: RawFolder) -> int:
    """The number of the round that is written next."""
    told = [event["round"] for event in read_events(raw.folder)]  # also of rounds whose folder was deleted
    return max([*existing_rounds(raw.folder), *told], default=-1) + 1


def with_ignore_label(raw: RawFolder) -> RawFolder:
    """The data set, with an ignore label in dataset.json; the user's first version is kept in gmabs."""
    content, _ = raw.dataset_json_with_ignore()
    if content == raw.dataset_json:
        return raw
    raw.replace_dataset_json(content)
    return RawFolder(raw.folder)


def open_planes(raw: RawFolder) -> dict[str, set[Plane]]:
    """For each scan of any round the planes that were asked for and are not merged; scans without one are left out."""
    events = read_events(raw.folder)
    waiting: dict[str, set[Plane]] = {}
    for number in existing_rounds(raw.folder):
        request = read_request(raw.folder, number)
        for scan in request.scans:
            done = {p for e in merged_now(events, scan.identifier) if e["round"] == number for p in planes_of(e)}
            left = set(request.planes_of(scan.identifier)) - done
            if left:
                waiting.setdefault(scan.identifier, set()).update(left)
    return waiting


def _fill(raw: RawFolder, folder: Path, request: Request, proposals: Mapping[str, np.ndarray]) -> None:
    write_request(folder, request)
    for name in ("answers", "proposals"):
        (folder / name).mkdir()
    for scan in request.scans:
        _, properties = raw.read_image(scan.identifier)
        if scan.proposal is not None:
            raw.write_labels(proposals[scan.identifier], folder / scan.proposal, properties)
    if raw.file_ending in EDITOR_FORMATS:
        write_for_editors(raw, folder, request)
