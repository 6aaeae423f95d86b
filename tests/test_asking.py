"""From scans, and a model made for the test, to requests: which scans, which planes, and why."""

import numpy as np
import pytest
import raw_data
from asked import PLANES, answer, ask, make_raw

from nnunet_gmabs import cli
from nnunet_gmabs.active.select import STRATEGIES
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import existing_rounds, read_request
from nnunet_gmabs.annotation.sources import waiting_sources
from nnunet_gmabs.commands.asking import AskOptions, find_candidates, make_request
from nnunet_gmabs.data import follow
from nnunet_gmabs.errors import InputError


class Fake:
    """Sees a box in every scan, and is unsure on as many planes of axis 0 as the scan's number says."""

    has_regions = False

    def __init__(self, box=(slice(2, 7), slice(3, 9), slice(5, 13))):
        self.box, self.asked = box, 0

    def predict_probabilities(self, image, properties):
        self.asked += 1
        shape = image.shape[1:]
        number = next(n for n in range(8) if np.array_equal(raw_data.scan_image(n), image[0]))
        foreground = np.zeros(shape)
        foreground[self.box] = 1.0
        foreground[:number] = np.clip(foreground[:number], 0.45, 0.55)
        return np.stack([1 - foreground, foreground, np.zeros(shape)])

    def to_labels(self, probs):
        return probs.argmax(axis=0)


@pytest.fixture
def raw(tmp_path):
    """scan_00 is labelled; seven more."""
    return make_raw(tmp_path, scans=8)


def chosen(request):
    return [scan.identifier for scan in request.scans]


def test_the_most_uncertain_scans_and_the_middle_of_what_is_predicted(raw):
    request, proposals = make_request(raw, AskOptions("uncertainty", 2), [Fake()], "folder")
    assert chosen(request) == ["scan_06", "scan_07"] or chosen(request) == ["scan_07", "scan_06"]
    shares = {n: n / raw_data.scan_shape(n)[0] for n in range(1, 8)}
    assert [s.score for s in request.scans] == pytest.approx(sorted(shares.values())[-1:-3:-1])
    assert (request.strategy, request.seed, request.model) == ("uncertainty", 0, "folder")
    first = request.scans[0]
    assert first.images == (f"imagesTr/{first.identifier}_0000.nii.gz",)
    labels = proposals[first.identifier]
    for plane in first.planes:
        held = np.flatnonzero((labels > 0).any(axis=tuple(a for a in range(3) if a != plane.axis)))
        assert plane.index_orig == (held[0] + held[-1]) // 2
        assert "middle of the predicted region" in plane.reason


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_gives_what_is_asked_for_twice_the_same(raw, name):
    models = [Fake(), Fake((slice(2, 5), slice(3, 9), slice(5, 13)))]
    first, second = (make_request(raw, AskOptions(name, 3, 4, seed=5), models)[0] for _ in range(2))
    assert first.scans == second.scans
    assert len(set(chosen(first))) == 3 and "scan_00" not in chosen(first)
    assert first.number_of_planes == 12
    assert all(scan.reason and all(plane.reason for plane in scan.planes) for scan in first.scans)


def test_only_chosen_scans_are_predicted_where_no_score_needs_more(raw):
    model = Fake()
    make_request(raw, AskOptions("foreground-random", 2), [model])
    assert model.asked == 2
    make_request(raw, AskOptions("uncertainty", 2), [model])
    assert model.asked == 2 + 7, "and each scan once"


def test_without_a_model_planes_go_through_the_body(raw):
    request, proposals = make_request(raw, AskOptions("cold-start", 7))
    assert sorted(chosen(request)) == [raw_data.name(n) for n in range(1, 8)] and proposals == {}
    assert all("the body" in plane.reason for scan in request.scans for plane in scan.planes)


def test_scans_that_wait_for_an_answer_are_not_asked_for_again(raw):
    ask(raw, {"scan_01": PLANES, "scan_02": PLANES})
    candidates, others = find_candidates(raw)
    assert sorted(candidates) == [raw_data.name(n) for n in range(3, 8)] and others == ["scan_00", "scan_01", "scan_02"]
    answer(raw, 0, "scan_01", PLANES)
    merge(raw, lambda: waiting_sources(raw))
    with pytest.raises(InputError, match="6 scans asked for, but only 5 of 8 are unlabelled"):
        make_request(raw, AskOptions("cold-start", 6))
    candidates, others = find_candidates(raw, labelled_too=True)
    assert candidates["scan_01"] == PLANES and others == ["scan_02"]


def test_drawn_planes_are_not_asked_for_again(raw):
    request, _ = make_request(raw, AskOptions("random", 8, 6, labelled_too=True))
    planes = request.planes_of("scan_00")
    assert len(planes) == 6 and not set(planes) & set(PLANES)


@pytest.mark.parametrize("drawn", [True, False])
def test_a_label_file_that_does_not_lie_on_the_image_is_named_before_anybody_paints(raw, drawn):
    larger = np.full((20, 15, 18), raw_data.IGNORE, np.uint8)  # the image has 12 planes on axis 0
    larger[19] = 1 if drawn else raw_data.IGNORE
    raw_data.write_labels(raw.folder, 0, planes=None, labels=larger)
    with pytest.raises(InputError, match=r"scan_00.nii.gz: has shape \(20, 15, 18\), but .* has \(12, 15, 18\)"):
        make_request(raw, AskOptions("random", 8, labelled_too=True))


@pytest.mark.parametrize("strategy", ["cold-start", "random"])
def test_images_of_one_slice_are_asked_for_whole(tmp_path, strategy):
    folder = tmp_path / "Dataset002_Flat"
    raw_data.write_dataset_json(folder, raw_data.SPARSE_LABELS, scans=3)
    for number in range(3):
        image = raw_data.scan_image(number)[:1]
        raw_data.write_image(folder / f"imagesTr/{raw_data.name(number)}_0000.nii.gz", image, (999.0, 1.0, 1.0))
    empty = np.zeros(raw_data.scan_image(0)[:1].shape, np.uint8)
    raw_data.write_image(folder / f"labelsTr/{raw_data.name(0)}.nii.gz", empty, (999.0, 1.0, 1.0))
    for labelled_too in (False, True):  # of scan 0 nothing is left to draw
        request, _ = make_request(RawFolder(folder), AskOptions(strategy, 2, labelled_too=labelled_too))
        assert [request.planes_of(scan) for scan in sorted(chosen(request))] == [[(0, 0)], [(0, 0)]]
        assert sorted(chosen(request)) == [raw_data.name(1), raw_data.name(2)]


@pytest.mark.parametrize(
    ("strategy", "value"), [("cold-start", np.nan), ("uncertainty-diverse", -np.inf), ("random", np.inf)]
)
def test_a_scan_with_a_value_that_is_no_number_is_named_with_its_file_and_the_cure(tmp_path, strategy, value):
    folder = tmp_path / "Dataset002_Broken"
    raw_data.write_dataset_json(
        folder, raw_data.SPARSE_LABELS, ("a", "b"), scans=2, file_ending=".nrrd"
    )  # NIfTI readers hide it
    for number in range(2):
        for channel in range(2):
            image = raw_data.scan_image(number)
            if number == channel == 1:
                image[2, 3, 4] = image[3, 4, 5] = value
            raw_data.write_image(folder / f"imagesTr/{raw_data.name(number)}_{channel:04d}.nrrd", image)
    with pytest.raises(InputError) as error:
        make_request(RawFolder(folder), AskOptions(strategy, 2), [Fake()] if strategy.startswith("un") else [])
    file = folder / "imagesTr/scan_01_0001.nrrd"
    assert str(error.value).startswith(f"{file}: 2 voxels are no finite number, such as {value} at (2, 3, 4); ")


def test_all_ignore_labels_are_no_labels(raw):
    raw_data.write_labels(raw.folder, 3, labels=np.full(raw_data.scan_shape(3), raw_data.IGNORE, np.uint8))
    assert "scan_03" in find_candidates(raw)[0]


@pytest.mark.parametrize(("budget", "scans"), [(None, 4), (11, 3), (12, 4), (100, 4)])
def test_a_budget_of_planes_limits_the_scans(raw, budget, scans):
    assert len(make_request(raw, AskOptions("random", 4, budget_planes=budget))[0].scans) == scans


@pytest.mark.parametrize(
    ("options", "models", "message"),
    [
        (("uncertainty", 1), 0, "give --from MODEL_FOLDER, or take --strategy cold-start"),
        (("disagreement", 1), 1, "give --against MODEL_FOLDER"),
        (("random", 1, 3, 0, None, False, 2), 0, "--budget 2: not enough for one scan with 3 planes"),
        (("random", 1, 3, 0, "information"), 0, "--plane-choice information asks a model"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(raw, options, models, message):
    with pytest.raises(InputError, match=message):
        make_request(raw, AskOptions(*options), [Fake()] * models)
    assert existing_rounds(raw.folder) == []


@pytest.mark.parametrize(("options", "message"), [(("best", 1), "must be one of random"), (("random", 0), "--scans 0")])
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        AskOptions(*options)


def status(folder, capsys):
    capsys.readouterr()
    assert cli.main(["status", "-d", folder]) == 0
    return capsys.readouterr().out


def test_the_commands_ask_merge_and_unmerge(raw, capsys, monkeypatch, tmp_path):
    folder = str(raw.folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nothing"))
    assert cli.main(["ask", "-d", folder, "--scans", "2", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "round 0: 2 scans, 6 planes, about 12 minutes of painting (2.0 a plane, a guess)" in said
    request = read_request(raw.folder, 0)
    assert request.strategy == "cold-start" and request.seed == 3
    for scan in request.scans:
        answer(raw, 0, scan.identifier, request.planes_of(scan.identifier))
    before = raw_data.snapshot(raw.folder / "labelsTr")
    assert "6 planes asked for, 6 answered, 0 merged" in status(folder, capsys)
    assert cli.main(["merge", "-d", folder, "--dry-run"]) == 0
    assert "labels of 2 scans would change; nothing was changed" in capsys.readouterr().out
    assert raw_data.snapshot(raw.folder / "labelsTr") == before
    assert cli.main(["merge", "-d", folder]) == 0
    assert "merged: labels of 2 scans changed" in capsys.readouterr().out
    assert "round 0 (cold-start): 2 scans, 6 planes asked for, 6 answered, 6 merged" in status(folder, capsys)
    assert cli.main(["merge", "-d", folder]) == 0
    assert "nothing to merge" in capsys.readouterr().out
    assert cli.main(["ask", "-d", folder, "--scans", "1"]) == 0
    assert "(0.5 a plane, as measured here)" in capsys.readouterr().out
    assert cli.main(["unmerge", "-d", folder, "--round", "0"]) == 0
    assert "has no label file any more" in capsys.readouterr().out
    assert raw_data.snapshot(raw.folder / "labelsTr") == before
    assert cli.main(["unmerge", "-d", folder, "--round", "7"]) == 2
    assert "there is no round 7; rounds asked: 0, 1" in capsys.readouterr().err


def test_that_label_files_without_the_ignore_label_count_as_drawn_everywhere_is_said_once(tmp_path, capsys):
    folder = raw_data.write_raw(tmp_path / "Dataset001_A", scans=4, labelled=())
    raw_data.write_labels(folder, 0, planes=None)
    for expected in (True, False):
        assert cli.main(["ask", "-d", str(folder), "--scans", "1"]) == 0
        assert ("run `gmabs import` first" in capsys.readouterr().out) == expected


def test_that_without_label_files_nothing_is_said_of_import(tmp_path, capsys):
    folder = raw_data.write_raw(tmp_path / "Dataset001_A", scans=4, labelled=())
    assert cli.main(["ask", "-d", str(folder), "--scans", "1"]) == 0
    assert "gmabs import" not in capsys.readouterr().out


def test_what_a_killed_command_left_behind_is_brought_up_to_date_by_the_next(raw, monkeypatch, tmp_path):
    ask(raw, {"scan_01": PLANES})
    answer(raw, 0, "scan_01", PLANES)
    merge(raw, lambda: waiting_sources(raw))  # and then the command was killed
    (tmp_path / raw.folder.name / "prepared").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    followed = []
    monkeypatch.setattr(follow, "follow_labels", lambda _, scans: followed.extend(scans) or [])
    assert cli.main(["merge", "-d", str(raw.folder)]) == 0
    assert followed == ["scan_01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "--done", "all"], "--done belongs to files"),
        (["merge", "a.nrrd", "b.nrrd", "--done", "0:1"], "merge the files one by one"),
        (["merge", "a.nrrd", "--done", "all"], "a.nrrd: no such file"),
        (["ask", "--scans", "1", "--from", "nowhere"], "nowhere: holds no fold_X/checkpoint_final.pth"),
        (["ask", "--scans", "1", "--strategy", "best"], "--strategy best: must be one of"),
    ],
)
def test_bad_arguments_are_named(raw, capsys, arguments, message):
    assert cli.main([arguments[0], "-d", str(raw.folder), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
