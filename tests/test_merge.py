"""Answers become labels: only what was said to be done, never over what was drawn before, all or nothing."""

import json

import numpy as np
import pytest
import raw_data
import SimpleITK as sitk
from asked import PLANES, answer, ask, drawn, labels_of, make_raw, truth

from nnunet_gmabs.annotation.ledger import read_events
from nnunet_gmabs.annotation.merge import merge, plan_merge
from nnunet_gmabs.annotation.rounds import open_planes
from nnunet_gmabs.annotation.sources import parse_done, source_of, waiting_sources
from nnunet_gmabs.annotation.unmerge import unmerge
from nnunet_gmabs.errors import InputError

IGNORE = raw_data.IGNORE


@pytest.fixture
def raw(tmp_path):
    """scan_01 and scan_02 are asked for, both are answered."""
    raw = make_raw(tmp_path)
    ask(raw, {"scan_01": PLANES, "scan_02": PLANES[:2]})
    answer(raw, 0, "scan_01", PLANES)
    answer(raw, 0, "scan_02", PLANES[:2])
    return raw


def merge_all(raw, **options):
    return merge(raw, lambda: waiting_sources(raw), **options)


def data(raw):
    """Labels, dataset.json and the ledger: what a merge may change."""
    return {
        path: content
        for path, content in raw_data.snapshot(raw.folder).items()
        if "lock" not in path.name and content is not None
    }


def test_answers_become_labels_and_the_ledger_tells(raw):
    merges = merge_all(raw)
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", PLANES))
    assert np.array_equal(labels_of(raw, "scan_02"), drawn("scan_02", PLANES[:2]))
    assert [m.added for m in merges] == [int((drawn(m.identifier, PLANES[: m_planes]) != IGNORE).sum())
                                         for m, m_planes in zip(merges, (3, 2), strict=True)]  # fmt: skip
    events = read_events(raw.folder)
    assert [e["event"] for e in events] == ["asked", "answered", "merged", "answered", "merged"]
    assert events[0] | {"strategy": "random", "scans": 2, "planes": 5} == events[0]
    assert events[1] | {"who": "anna", "seconds": 90.0, "scan": "scan_01", "round": 0} == events[1]
    assert events[2]["before_sha256"] is None


def test_labels_lie_where_the_image_lies(raw):
    merge_all(raw)
    geometries = [
        properties["sitk_stuff"]
        for _, properties in (raw.read_image("scan_01"), raw.read_labels(raw.label_path("scan_01")))
    ]
    assert geometries[0] == geometries[1]


def test_merging_twice_changes_nothing(raw):
    merge_all(raw)
    before, times = data(raw), raw_data.stamps(raw.folder / "labelsTr")
    assert merge_all(raw) == []
    path = raw.folder / "gmabs/requests/round_000/answers/scan_01.nii.gz"
    [again] = merge(raw, lambda: [source_of(raw, path)])
    assert again.labels is None and again.added == 0
    assert data(raw) == before and raw_data.stamps(raw.folder / "labelsTr") == times


def test_a_dry_run_shows_the_same_and_changes_nothing(raw):
    before = data(raw)
    planned = plan_merge(raw, waiting_sources(raw))
    assert data(raw) == before
    assert [p.describe() for p in planned] == [m.describe() for m in merge_all(raw)]
    assert planned[1].describe().startswith("scan_02 (round 0): 2 planes done, ")


@pytest.mark.parametrize("change", ["flipped", "moved"])
def test_labels_that_no_longer_lie_on_the_grid_of_the_image_are_named_and_nothing_is_merged(tmp_path, change):
    raw = make_raw(tmp_path)
    ask(raw, {"scan_00": [(0, 3)]})
    answer(raw, 0, "scan_00", [(0, 3)])
    path = raw.label_path("scan_00")
    image = sitk.ReadImage(str(path))
    if change == "flipped":  # the same labels at the same place, but x runs the other way
        image = sitk.Flip(image, [True, False, False])
    else:
        image.SetOrigin([value + 1 for value in image.GetOrigin()])
    sitk.WriteImage(image, str(path))
    before = data(raw)
    with pytest.raises(
        InputError, match=r"scan_00.nii.gz: has origin \[.*\], but .*scan_00_0000.nii.gz has .*; export"
    ):
        merge_all(raw)
    assert data(raw) == before


def test_what_is_not_done_is_not_taken(raw):
    painted = drawn("scan_03", PLANES)  # painted on three planes, one of them done
    ask(raw, {"scan_03": PLANES})
    answer(raw, 1, "scan_03", PLANES[1:2], labels=painted)
    [_, _, third] = merge_all(raw)
    assert np.array_equal(labels_of(raw, "scan_03"), drawn("scan_03", PLANES[1:2]))
    assert "scan_03.nii.gz: not done: 0:6 2:9" in third.notes
    assert any("painted on planes that are not done are left out" in note for note in third.notes)
    assert open_planes(raw) == {"scan_03": {(0, 6), (2, 9)}}


def test_a_plane_marked_done_without_any_structure_is_background(raw):
    ask(raw, {"scan_03": [(0, 0)]})
    answer(raw, 1, "scan_03", [(0, 0)])
    merge_all(raw)
    assert (labels_of(raw, "scan_03")[0] == 0).all() and (labels_of(raw, "scan_03")[1:] == IGNORE).all()


def test_extra_planes_are_taken_only_when_told(raw):
    extra = [*PLANES, (0, 4)]
    ask(raw, {"scan_03": PLANES})
    answer(raw, 1, "scan_03", extra)
    planned = plan_merge(raw, waiting_sources(raw, [1]))
    assert np.array_equal(planned[0].labels, drawn("scan_03", PLANES))
    assert any("planes 0:4 were not asked for" in note for note in planned[0].notes)
    merge_all(raw, extra_planes=True)
    assert np.array_equal(labels_of(raw, "scan_03"), drawn("scan_03", extra))


def test_a_done_plane_with_undrawn_voxels_is_refused_and_nothing_is_merged(raw):
    labels = drawn("scan_02", PLANES[:2])
    labels[6, 2, 3] = IGNORE
    answer(raw, 0, "scan_02", PLANES[:2], labels=labels)
    before = data(raw)
    with pytest.raises(InputError, match=r"planes 0:6 are said to be done, but 1 voxel.*the first at \(6, 2, 3\)"):
        merge_all(raw)
    assert data(raw) == before


def conflicting(raw):
    """scan_00 has its planes drawn; a new plane crosses them, and two crossing voxels are painted differently."""
    labels = drawn("scan_00", [(0, 4)])
    labels[4, 8, 0:2] = 2  # plane (1, 8) was drawn, and is background there
    ask(raw, {"scan_00": [(0, 4)]})
    answer(raw, 1, "scan_00", [(0, 4)], labels=labels)
    return labels


def test_a_contradiction_is_listed_and_nothing_is_merged(raw):
    conflicting(raw)
    before = data(raw)
    with pytest.raises(InputError, match=r"2 voxels, the first at \(4, 8, 0\): 0 earlier, 2 now") as error:
        merge_all(raw)
    assert "--on-conflict keep" in str(error.value)
    assert data(raw) == before


@pytest.mark.parametrize(("choice", "value", "counts"), [("keep", 0, (0, 2)), ("replace", 2, (2, 0))])
def test_a_contradiction_is_settled_as_told(raw, choice, value, counts):
    conflicting(raw)
    earlier = labels_of(raw, "scan_00")
    first = merge_all(raw, on_conflict=choice)[0]
    expected = np.where(earlier != IGNORE, earlier, drawn("scan_00", [(0, 4)]))
    expected[4, 8, 0:2] = value
    assert np.array_equal(labels_of(raw, "scan_00"), expected)
    assert (first.replaced, first.kept) == counts
    assert merge_all(raw) == []


def test_two_rounds_for_one_scan_come_upon_each_other(raw):
    ask(raw, {"scan_01": [(0, 3)]})
    answer(raw, 1, "scan_01", [(0, 3)])
    merge_all(raw)
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", [*PLANES, (0, 3)]))


def test_a_round_is_taken_back_byte_for_byte(raw):
    before = data(raw)
    merge_all(raw)
    merged = data(raw)
    taken = unmerge(raw, 0)
    assert [(t.identifier, t.removed, t.deeper) for t in taken] == [("scan_01", True, False), ("scan_02", True, False)]
    ledger = raw.folder / "gmabs/rounds.jsonl"
    assert {p: c for p, c in data(raw).items() if p != ledger} == {p: c for p, c in before.items() if p != ledger}
    assert data(raw)[ledger].startswith(merged[ledger])
    assert unmerge(raw, 0) == []
    merge_all(raw)
    assert labels_of(raw, "scan_01").tobytes() == drawn("scan_01", PLANES).astype(np.int32).tobytes()


def test_rounds_upon_each_other_are_taken_back_from_the_top(raw):
    merge_all(raw)
    first = raw.label_path("scan_01").read_bytes()
    ask(raw, {"scan_01": [(0, 3)]})
    answer(raw, 1, "scan_01", [(0, 3)])
    merge_all(raw)
    with pytest.raises(InputError, match="round 1 was merged later into scan_01; take that back first: --round 1"):
        unmerge(raw, 0)
    unmerge(raw, 1)
    assert raw.label_path("scan_01").read_bytes() == first
    assert unmerge(raw, 0)[0].removed


def test_both_rounds_of_one_merge_are_taken_back_one_by_one(raw):
    ask(raw, {"scan_01": [(0, 3)]})
    answer(raw, 1, "scan_01", [(0, 3)])
    merge_all(raw)
    unmerge(raw, 1)
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", PLANES))
    unmerge(raw, 0)
    assert not raw.label_path("scan_01").exists()


def test_a_label_file_changed_since_is_not_taken_back(raw):
    merge_all(raw)
    labels, properties = raw.read_labels(raw.label_path("scan_02"))
    raw.write_labels(np.where(labels == 0, 1, labels), raw.label_path("scan_02"), properties)
    before = data(raw)
    with pytest.raises(InputError, match="scan_02.nii.gz: was changed since round 0 was merged"):
        unmerge(raw, 0)
    assert data(raw) == before


def test_an_answer_given_anew_is_merged_anew(raw):
    merge_all(raw)
    answer(raw, 0, "scan_02", PLANES[:1], labels=drawn("scan_02", PLANES[:2]))
    labels = drawn("scan_02", PLANES[:2])
    labels[6, 0, 0] = 1
    answer(raw, 0, "scan_02", PLANES[:2], labels=labels)
    with pytest.raises(InputError, match="1 voxel, the first at"):
        merge_all(raw)
    merge_all(raw, on_conflict="replace")
    assert labels_of(raw, "scan_02")[6, 0, 0] == 1
    assert unmerge(raw, 0)[1].removed, "both merges of the round are taken back"


def test_a_file_of_an_editor_needs_to_be_told_what_is_done(raw):
    path = raw.folder / "gmabs/requests/round_000/for_editors/scan_01/scan_01_labels.nii.gz"
    labels, properties = raw.read_labels(path)
    painted = np.where(labels == 0, truth("scan_01"), labels)
    raw.write_labels(painted, path, properties)
    with pytest.raises(InputError, match="Say --done all for 0:6 1:8 2:9"):
        source_of(raw, path)
    merge(raw, lambda: [source_of(raw, path, "all")])
    assert np.array_equal(labels_of(raw, "scan_01"), drawn("scan_01", PLANES))
    assert read_events(raw.folder)[-1]["planes_done"] == [list(plane) for plane in PLANES]


def test_only_named_planes_of_a_file_are_taken(raw):
    path = raw.folder / "gmabs/requests/round_000/for_editors/scan_01/scan_01_labels.nii.gz"
    merge(raw, lambda: [source_of(raw, path, parse_done(["0:6"]))])
    assert (labels_of(raw, "scan_01") == 0).sum() == 16 * 19


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scan_01_labels.mp4", {"done": "all"}, "ends with none of"),
        ("patient.nii.gz", {"done": "all"}, "begins with that of no scan"),
        ("scan_03.nii.gz", {"done": "all"}, "no round asks for scan_03"),
        ("scan_01.nii.gz", {"done": "all", "number": 4}, "round 4 asks for scan_01; rounds that do: 0"),
        ("scan_011.nii.gz", {"done": "all"}, "begins with that of no scan"),
    ],
)
def test_a_file_that_cannot_be_placed_is_refused(raw, tmp_path, name, options, message):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(InputError, match=message):
        source_of(raw, path, **options)


def test_a_scan_is_told_by_the_name_of_the_folder_as_well(raw, tmp_path):
    path = tmp_path / "scan_02" / "Segmentation.nrrd"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert source_of(raw, path, "all").identifier == "scan_02"


@pytest.mark.parametrize("words", [["0:x"], ["3:1"], ["all", "0:1"], ["0:1,1:2"]])
def test_done_is_all_or_planes(words):
    with pytest.raises(InputError, match="must be  all"):
        parse_done(words)
    assert parse_done(["0:12", "2:3"]) == [(0, 12), (2, 3)] and parse_done(None) is None


def test_two_files_for_one_request_are_refused(raw, tmp_path):
    path = raw.folder / "gmabs/requests/round_000/answers/scan_01.nii.gz"
    with pytest.raises(InputError, match="answer the same request"):
        plan_merge(raw, [source_of(raw, path), source_of(raw, path)])


def test_labels_without_what_is_said_about_them_have_not_arrived(raw):
    (raw.folder / "gmabs/requests/round_000/answers/scan_01.json").unlink()
    assert [m.identifier for m in merge_all(raw)] == ["scan_02"]


def test_an_answer_without_labels_is_named(raw):
    (raw.folder / "gmabs/requests/round_000/answers/scan_01.nii.gz").unlink()
    with pytest.raises(InputError, match=r"scan_01.nii.gz is missing, but scan_01.json is there"):
        merge_all(raw)


def test_dataset_json_gets_an_ignore_label_when_asking(tmp_path):
    raw = make_raw(tmp_path, labels=raw_data.LABELS, labelled=())
    ask(raw, {"scan_01": PLANES})
    content = json.loads((raw.folder / "dataset.json").read_text())
    assert content["labels"] == raw_data.SPARSE_LABELS
    assert json.loads((raw.folder / "gmabs/dataset.json.backup").read_text())["labels"] == raw_data.LABELS
