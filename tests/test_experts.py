"""A simulated expert answers at once and leaves labelsTr alone; a person answers some day."""

import shutil

import numpy as np
import pytest
import raw_data
from asked import PLANES, answer, ask, drawn, labels_of, make_raw, request

from nnunet_gmabs.annotation.experts import Folder, Simulated
from nnunet_gmabs.annotation.ledger import measured_minutes_per_plane, read_events
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.requests import existing_rounds
from nnunet_gmabs.annotation.rounds import open_planes
from nnunet_gmabs.annotation.sources import waiting_sources
from nnunet_gmabs.annotation.unmerge import unmerge
from nnunet_gmabs.errors import InputError


@pytest.fixture
def dense(tmp_path):
    """A data set with dense labels beside."""
    raw = make_raw(tmp_path)
    for number in range(4):
        path = raw.folder / "labelsTr_dense" / f"{raw_data.name(number)}.nii.gz"
        raw_data.write_image(path, raw_data.scan_labels(number), raw_data.scan_spacing(number))
    return raw


def test_the_simulated_expert_draws_what_is_asked_into_its_own_folder(dense, tmp_path):
    before = raw_data.snapshot(dense.folder)
    expert = Simulated(dense, tmp_path / "run" / "expert")
    expert.ask(request({"scan_01": PLANES, "scan_02": PLANES[:1]}))
    answers = expert.poll()
    assert [(a.identifier, a.planes) for a in answers] == [("scan_01", tuple(PLANES)), ("scan_02", ((0, 6),))]
    assert np.array_equal(dense.read_labels(answers[0].label_file)[0], drawn("scan_01", PLANES))
    assert np.array_equal(dense.read_labels(answers[1].label_file)[0], drawn("scan_02", PLANES[:1]))
    assert answers[0].label_file == tmp_path / "run" / "expert" / "scan_01.nii.gz"
    assert raw_data.snapshot(dense.folder) == before
    assert expert.poll() == []


def test_later_answers_are_added_to_earlier_ones_and_to_labels_also_after_a_restart(dense, tmp_path):
    for planes in ([(0, 2)], [(1, 3)]):
        expert = Simulated(dense, tmp_path / "expert")
        expert.ask(request({"scan_00": planes}))
        [found] = expert.poll()
    expected = drawn("scan_00", [*PLANES, (0, 2), (1, 3)])  # scan_00 has PLANES drawn in labelsTr
    assert np.array_equal(dense.read_labels(found.label_file)[0], expected)


def test_without_dense_labels_nobody_can_be_simulated(tmp_path):
    raw = make_raw(tmp_path)
    with pytest.raises(InputError, match="labelsTr_dense: no such folder"):
        Simulated(raw, tmp_path / "expert")


def test_a_person_is_asked_by_a_round_and_answers_are_reported_once(tmp_path):
    raw = make_raw(tmp_path)
    expert = Folder(raw)
    asked = expert.ask(request({"scan_01": PLANES}), {"scan_01": np.ones((13, 16, 19), np.uint8)})
    assert asked.round == 0 and asked.scans[0].proposal == "proposals/scan_01.nii.gz"
    proposal, _ = raw.read_labels(raw.folder / "gmabs/requests/round_000/proposals/scan_01.nii.gz")
    assert (proposal == 1).all()
    assert expert.poll() == []
    answer(raw, 0, "scan_01", PLANES[:2])
    [arrived] = expert.poll()
    assert (arrived.identifier, arrived.planes, arrived.source.round) == ("scan_01", tuple(PLANES[:2]), 0)
    assert expert.poll() == []
    merge(raw, lambda: [arrived.source])
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", PLANES[:2]))
    answer(raw, 0, "scan_01", PLANES)
    assert [a.planes for a in expert.poll()] == [tuple(PLANES)]
    assert Folder(raw).poll()[0].planes == tuple(PLANES), "a new training sees what is not merged"


def test_what_was_taken_back_is_left_to_people_until_it_is_drawn_anew(tmp_path):
    raw = make_raw(tmp_path)
    ask(raw, {"scan_01": PLANES, "scan_02": PLANES})
    answer(raw, 0, "scan_01", PLANES)
    expert = Folder(raw)  # of a training that goes on
    merge(raw, lambda: waiting_sources(raw))  # somebody merges beside it, and takes it back
    unmerge(raw, 0)
    answer(raw, 0, "scan_02", PLANES)
    assert [a.identifier for a in expert.poll()] == ["scan_02"]
    assert [a.identifier for a in Folder(raw).poll()] == ["scan_02"], "nor does a new training merge it again"
    assert [s.identifier for s in waiting_sources(raw)] == ["scan_01", "scan_02"], "but gmabs merge does"
    answer(raw, 0, "scan_01", PLANES[:2])
    assert [a.identifier for a in expert.poll()] == ["scan_01"]


def test_rounds_are_numbered_and_what_is_open_is_known(tmp_path):
    raw = make_raw(tmp_path)
    assert [ask(raw, {"scan_01": PLANES}).round, ask(raw, {"scan_02": [(0, 1)]}).round] == [0, 1]
    assert existing_rounds(raw.folder) == [0, 1]
    assert open_planes(raw) == {"scan_01": set(PLANES), "scan_02": {(0, 1)}}
    answer(raw, 0, "scan_01", PLANES)
    merge(raw, lambda: waiting_sources(raw))
    assert open_planes(raw) == {"scan_02": {(0, 1)}}


def test_the_number_of_a_deleted_round_is_not_used_again(tmp_path):
    raw = make_raw(tmp_path)
    ask(raw, {"scan_01": PLANES})
    shutil.rmtree(raw.folder / "gmabs/requests/round_000")
    assert open_planes(raw) == {}
    assert ask(raw, {"scan_01": PLANES}).round == 1


def test_a_scan_that_does_not_exist_is_not_asked_for(tmp_path):
    raw = make_raw(tmp_path)
    before = raw_data.snapshot(raw.folder / "gmabs")
    with pytest.raises(InputError, match="holds no scan scan_77"):
        ask(raw, {"scan_01": PLANES, "scan_77": PLANES})
    assert {p: c for p, c in raw_data.snapshot(raw.folder / "gmabs").items() if p.name != "requests"} == before


def test_time_for_a_plane_is_measured_from_answers(tmp_path):
    raw = make_raw(tmp_path)
    assert measured_minutes_per_plane(read_events(raw.folder)) is None
    ask(raw, {"scan_01": PLANES, "scan_02": PLANES, "scan_03": PLANES})
    answer(raw, 0, "scan_01", PLANES, seconds=180.0)
    answer(raw, 0, "scan_02", PLANES[:1], seconds=300.0)
    answer(raw, 0, "scan_03", PLANES, seconds=None)
    merge(raw, lambda: waiting_sources(raw))
    assert measured_minutes_per_plane(read_events(raw.folder)) == pytest.approx(480 / 60 / 4)
