"""Requests and answers are read back as they were written, in the format that other programs rely on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import raw_data

from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import (
    Answer,
    Request,
    RequestedPlane,
    RequestedScan,
    answer_paths,
    arrived_answers,
    existing_rounds,
    read_request,
    requests_folder,
    round_folder,
    write_answer,
    write_request,
)
from nnunet_gmabs.errors import InputError

REQUEST = Request(
    round=3,
    created="2030-01-02T03:04:05+00:00",
    strategy="uncertainty",
    seed=7,
    scans=(
        RequestedScan(
            "scan_01",
            images=("imagesTr/scan_01_0000.nii.gz", "imagesTr/scan_01_0001.nii.gz"),
            planes=(RequestedPlane(0, 5, 0.25, "middle"), RequestedPlane(2, 9)),
            score=0.125,
            reason="most uncertain",
            proposal="proposals/scan_01.nii.gz",
        ),
        RequestedScan("scan_04", images=("imagesTr/scan_04_0000.nii.gz",), planes=(RequestedPlane(1, 0),)),
    ),
    model="/models/fold_0",
)


def written(tmp_path, request=REQUEST):
    folder = round_folder(tmp_path, request.round)
    folder.mkdir(parents=True)
    write_request(folder, request)
    return folder


def test_a_request_is_read_back_as_it_was_written(tmp_path):
    folder = written(tmp_path)
    assert folder == tmp_path / "gmabs" / "requests" / "round_003"
    assert read_request(tmp_path, 3) == REQUEST
    assert existing_rounds(tmp_path) == [3]
    assert REQUEST.number_of_planes == 3
    assert REQUEST.planes_of("scan_01") == [(0, 5), (2, 9)] and REQUEST.planes_of("scan_02") == []


def test_copies_and_other_folders_beside_the_rounds_are_no_rounds(tmp_path):
    written(tmp_path)
    thousandth = replace(REQUEST, round=1000)
    written(tmp_path, thousandth)
    for name in ["round_003_copy", "round_003 (1)", "round_", "round_-1", "round_0_5", "round_0003", "old_round_4"]:
        shutil.copytree(round_folder(tmp_path, 3), requests_folder(tmp_path) / name)
    assert existing_rounds(tmp_path) == [3, 1000]
    assert read_request(tmp_path, 1000) == thousandth


def test_the_format_of_request_json(tmp_path):
    content = json.loads((written(tmp_path) / "request.json").read_text())
    assert content["version"] == 1
    assert set(content) == {"version", "round", "created", "strategy", "seed", "scans", "model"}
    assert content["scans"][1] == {
        "identifier": "scan_04",
        "images": ["imagesTr/scan_04_0000.nii.gz"],
        "planes": [{"axis": 1, "index_orig": 0, "score": None, "reason": ""}],
        "score": None,
        "reason": "",
        "proposal": None,
    }


def test_a_missing_round_is_named_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="no round 0; rounds asked: none yet; run `gmabs ask`"):
        read_request(tmp_path, 0)
    written(tmp_path)
    with pytest.raises(InputError, match="no round 0; rounds asked: 3"):
        read_request(tmp_path, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version is 2"),
        ({"scans": [{"identifier": "a"}]}, "planes"),
        ({"scans": [{"identifier": "a", "images": [], "planes": [{"axis": 3, "index_orig": 0}]}]}, "axis must be"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_request_that_is_not_understood_is_refused_by_name(tmp_path, change, message):
    path = written(tmp_path) / "request.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=f"request.json.*{message}"):
        read_request(tmp_path, 3)


def test_an_answer_is_read_back_with_its_labels(tmp_path):
    raw = RawFolder(raw_data.write_raw(tmp_path / "Dataset001_A", 2, (0,), raw_data.SPARSE_LABELS))
    labels, properties = raw.read_labels(raw.label_path("scan_00"))
    folder = written(raw.folder)
    answer = Answer("scan_00", ((0, 6), (1, 8)), "somebody", 61.5, "hand", ((0, 6),))
    files = write_answer(raw, 3, answer, labels, properties)
    assert files == answer_paths(folder, "scan_00", ".nii.gz")
    assert arrived_answers(folder) == [answer]
    assert np.array_equal(raw.read_labels(files[0])[0], labels)
    content = json.loads(files[1].read_text())
    assert content == {
        "identifier": "scan_00",
        "planes_done": [{"axis": 0, "index_orig": 6}, {"axis": 1, "index_orig": 8}],
        "annotator": "somebody",
        "seconds": 61.5,
        "tool": "hand",
        "proposal_accepted": [{"axis": 0, "index_orig": 6}],
    }


def test_labels_alone_are_no_answer(tmp_path):
    folder = written(tmp_path)
    labels, _ = answer_paths(folder, "scan_00", ".nii.gz")
    labels.parent.mkdir()
    labels.write_bytes(b"half an answer")
    assert arrived_answers(folder) == []
