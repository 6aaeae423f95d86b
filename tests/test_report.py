"""The report's page: its numbers, its sentences for what is missing, and names that try to be markup."""

import csv
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import asked
import numpy as np
import pytest
import raw_data
from asked import PLANES

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.experts import Simulated
from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.rounds import write_round
from nnunet_gmabs.annotation.sources import waiting_sources
from nnunet_gmabs.annotation.unmerge import unmerge
from nnunet_gmabs.data.splits import make_folds
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.report.drawing import class_colour
from nnunet_gmabs.report.page import curves, scans
from nnunet_gmabs.report.page.asked import read_rounds
from nnunet_gmabs.report.page.asked_by_training import agreement_before, asked_by
from nnunet_gmabs.report.page.build import Inputs, write_report
from nnunet_gmabs.report.page.planes import Look, chosen_planes, draw_planes
from nnunet_gmabs.report.page.reading import Damaged, read_log
from nnunet_gmabs.report.page.trainings import Training, compare_settings, named_trainings, names_apart, read_training
from nnunet_gmabs.report.page.truth import Predictions, parse_predictions, truth_tables
from nnunet_gmabs.report.page.words import curve_name

HOSTILE = '<script>alert("x")</script>&'
LOG = [
    {"epoch": 0, "loss/supervised": 1.5, "weight/supervised": 1.0, "pseudo_dice/teacher": 0.25},
    {"epoch": 1, "loss/supervised": 0.5, "weight/supervised": 1.0, "pseudo_dice/teacher": 0.625},
]
LOG[1] |= {"round/scans": 4, "round/quality": 0.75, "round/expert_dice/view_0": 0.5, "round/expert_dice/class_1": 0.875}


class Page(HTMLParser):
    """Tables as rows of words, text, tags and addresses of a page."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tables, self.text, self.tags, self.addresses = {}, "", [], []
        self._table, self._in_cell = None, False
        self.feed(self.html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attrs[name] for name in ("src", "href", "action") if name in attrs]
        if tag == "table":
            self._table = self.tables.setdefault(attrs.get("id") or attrs.get("class"), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table:
            self._table[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self._table[-1][-1] = " ".join((self._table[-1][-1] + data).split())


def page(raw, tmp_path, **more):
    path = tmp_path / "report.html"
    write_report(path, Inputs(raw, **more))
    return Page(path)


def make_training(folder, name="nnUNetTrainerGMABS__nnUNetPlans__3d_fullres/fold_0", log=LOG, **config):
    folder = folder / name
    folder.mkdir(parents=True)
    settings = {"num_epochs": 2, "inference_network": "teacher", "relabel": {"every": 0.5}} | config
    (folder / "gmabs.json").write_text(json.dumps({"config": settings, "versions": {"torch": "2.0"}}))
    with open(folder / "gmabs_log.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, list(dict.fromkeys(n for row in log for n in row)), restval="")
        writer.writeheader()
        writer.writerows(log)
    return folder


@pytest.fixture
def raw(tmp_path):
    return asked.make_raw(tmp_path)


def test_a_data_set_without_anything_gives_a_page_of_sentences(tmp_path):
    raw = RawFolder(raw_data.write_raw(tmp_path / "Dataset001_A", 2, (), raw_data.SPARSE_LABELS))
    found = page(raw, tmp_path)
    for sentence in (
        "No expert was asked through gmabs ask",
        "No plane is drawn yet, so there is no picture.",
        "No training of this data set was found.",
        "so predictions cannot be scored",
    ):
        assert sentence in found.text
    assert "img" not in found.tags and "left out" not in found.text


def test_the_budget_counts_planes_and_minutes(raw, tmp_path):
    asked.ask(raw, {"scan_01": PLANES, "scan_02": PLANES[:2]})
    write_round(raw, asked.request({"scan_03": PLANES[:1]}, strategy="cold-start"))
    asked.answer(raw, 0, "scan_01", PLANES, seconds=90.0)
    asked.answer(raw, 0, "scan_02", PLANES[:1], annotator="bert", seconds=None)
    found = page(raw, tmp_path)
    rows, text = found.tables["budget"], found.text
    assert rows[1] == ["0", "2030-01-01 00:00 UTC", "random", "2", "5", "4", "1.5", "anna, bert"]
    assert rows[2][2:] == ["cold-start", "1", "1", "0", "–", "nobody yet"]
    assert rows[3][:4] == ["Budget spent", "6", "4", "1.5"]
    # 1.5 minutes over the 3 planes of the one timed answer; 2 planes are open
    assert "1 of 2 answers has a time; 0.5 minutes a plane" in text and "2 planes still open: about 1 minutes" in text


def test_a_plane_tells_where_it_is_why_and_what_came_of_it(raw, tmp_path):
    asked.ask(raw, {"scan_01": PLANES, "scan_02": PLANES[:1]})
    asked.answer(raw, 0, "scan_01", PLANES[:2])
    before = [plane.state for scan in rounds(raw)[0].scans for plane in scan.planes]
    assert before == ["drawn, not merged yet"] * 2 + ["waits for an expert"] * 2
    merge(raw, lambda: waiting_sources(raw))
    found = page(raw, tmp_path)
    row = found.tables["round"][1]
    assert row[:5] == ["scan_01", "", "axial, axis 0, index 6", "because", "in the labels"]
    assert row[5].startswith("anna") and row[6] == "1.5"
    assert "In the labels: 2 planes; waits for an expert: 2 planes." in found.text
    unmerge(raw, 0)
    states = [plane.state for scan in rounds(raw)[0].scans for plane in scan.planes]
    assert states == ["taken back"] * 2 + ["waits for an expert"] * 2


def rounds(raw):
    damaged = Damaged()
    found = read_rounds(raw, damaged, 2.0).rounds
    assert damaged.messages == []
    return found


def test_names_that_are_markup_stay_text(tmp_path):
    name = '<img src=x onerror="alert(1)">&'
    labels = {"background": 0, f"$l_{HOSTILE}": 1, "right": 2, "ignore": 3}
    folder = raw_data.write_raw(tmp_path / "Dataset001_<i>A", 2, (), labels)
    (folder / "imagesTr/scan_01_0000.nii.gz").rename(folder / f"imagesTr/{name}_0000.nii.gz")
    raw = RawFolder(folder)
    write_round(raw, asked.request({name: PLANES}, strategy=HOSTILE))
    _, properties = raw.read_image(name)
    labels = asked.keep_planes(raw_data.scan_labels(1), PLANES, raw_data.IGNORE)
    asked.write_answer(raw, 0, asked.Answer(name, tuple(PLANES), HOSTILE, 60.0, HOSTILE), labels, properties)
    training = make_training(tmp_path / "results", f"{HOSTILE.replace('/', '')}__p__3d/fold_0", **{HOSTILE: HOSTILE})
    found = page(raw, tmp_path, trainings=[training])
    assert "script" not in found.tags and "i" not in found.tags[:20]
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert name in found.text and HOSTILE in found.text and "Dataset001_<i>A" in found.text


def test_the_page_asks_for_nothing_from_outside(raw, tmp_path):
    asked.ask(raw, {"scan_01": PLANES})
    found = page(raw, tmp_path, trainings=[make_training(tmp_path / "results")])
    assert not re.search(r"(?:https?:)?//", re.sub(r"base64,[A-Za-z0-9+/=]+", "", found.html))
    assert "script" not in found.tags and "link" not in found.tags and "iframe" not in found.tags
    assert sum(address.startswith("data:image/") for address in found.addresses) >= 6
    assert "default-src 'none'" in found.html


def make_asking(raw, folder, scans, epochs=(1,), **more):
    """A training that asked a simulated expert for one scan a round: identifier -> planes."""
    training = make_training(folder, **more)
    if not (raw.folder / "labelsTr_dense").is_dir():
        write_predictions(raw, raw.folder / "labelsTr_dense", range(4), 0)
    expert = Simulated(raw, training / "expert")
    rounds = []
    for number, (trained, (name, planes)) in enumerate(zip(epochs, scans.items(), strict=True)):
        proposal = {name: np.roll(asked.truth(name), 1, axis=2)}
        request = asked.request({name: planes}, round=number, strategy="uncertainty")
        request = replace(request, scans=tuple(replace(s, score=0.5, reason="unsure") for s in request.scans))
        rounds.append(asdict(expert.ask(request, proposal)) | {"epochs_trained": trained})
    (training / "asked.json").write_text(json.dumps(rounds))
    return training


def test_a_simulated_expert_shows_what_was_asked_when_and_what_it_would_cost_a_person(raw, tmp_path):
    one = make_asking(
        raw, tmp_path / "results", {"scan_02": PLANES, "scan_03": PLANES[:1]}, (1, 2), active={"budget_planes": 9}
    )
    asked.ask(raw, {"scan_01": PLANES})
    asked.answer(raw, 0, "scan_01", PLANES, seconds=90.0)  # half a minute a plane
    before = raw_data.snapshot(raw.folder)
    found = page(raw, tmp_path, trainings=[one])
    assert found.tables["simulated"][1:4] == [
        ["0", "1 epoch", "uncertainty", "1", "3", "3", "1.5", "–"],  # the generalist first labels in epoch 1
        ["1", "2 epochs", "uncertainty", "1", "1", "1", "0.5", "87.5"],
        ["Budget spent", "2", "4", "4", "2.0", ""],
    ]
    rows = found.tables["by-training"]
    assert rows[1] == [
        "0",
        "scan_02",
        "unsure",
        "0.500",
        "axial, axis 0, index 6",
        "because",
        "drawn for this training",
    ]
    assert rows[2] == ["sagittal, axis 1, index 8", "because", "drawn for this training"]
    assert rows[4][:2] == ["1", "scan_03"] and len(rows) == 5
    assert "4 of 4 requested planes drawn in 2 scans; the budget is 9 planes" in found.text
    assert "4planes drawn by simulated experts, for 1 training" in found.text  # the number is a block of its own
    assert found.tables["budget"][-1][:4] == ["Budget spent", "3", "3", "1.5"], "persons' planes are counted apart"
    assert found.html.count('alt="Planes of scan_02, bare') == found.html.count('alt="Planes of scan_03, bare') == 1
    assert raw_data.snapshot(raw.folder) == before


def test_a_picture_of_a_simulated_answer_has_the_proposal_from_before(raw, tmp_path):
    one = make_asking(raw, tmp_path / "results", {"scan_02": PLANES})
    found = asked_by(raw, read_training(one, Damaged()), 2.0, Damaged())
    with mock.patch.object(scans, "draw_planes", return_value="data:image/png;base64,") as draw:
        [picture] = scans.asked_pictures(raw, [found.rounds[0].round], {1: "left"}, Damaged())
    look, planes, _ = draw.call_args.args
    assert np.array_equal(look.expert, asked.drawn("scan_02", PLANES)) and sorted(planes) == PLANES
    assert np.array_equal(look.lines["specialist"], np.roll(asked.truth("scan_02"), 1, axis=2))
    assert picture.note == "round 0, with the model's proposal from before"
    _, properties = raw.read_image("scan_02")
    raw.write_labels(np.zeros_like(look.expert), one / "expert/scan_02_proposal.nii.gz", properties)
    [picture] = scans.asked_pictures(raw, [found.rounds[0].round], {1: "left"}, Damaged())
    assert picture.note == "round 0, the model had found nothing in this scan"


def test_pictures_of_simulated_answers_are_the_newest_of_a_models_first_fold(raw, tmp_path):
    folds = [f"nnUNetTrainerGMABSActive__nnUNetPlans__3d_fullres/fold_{fold}" for fold in (0, 1)]
    one = make_asking(raw, tmp_path / "results", {"scan_01": PLANES, "scan_02": PLANES}, (1, 2), name=folds[0])
    two = make_asking(raw, tmp_path / "results", {"scan_03": PLANES}, name=folds[1])
    with mock.patch.object(scans, "MOST_SIMULATED", 1):
        found = page(raw, tmp_path, trainings=[one, two])
    shown = re.findall(r'alt="Planes of (\w+), bare', found.html.split("Drawn by the simulated expert")[1])
    assert shown == ["scan_02"] and found.html.count("Drawn by the simulated expert") == 1


def test_an_answer_that_is_gone_and_a_damaged_list_of_questions_are_told(raw, tmp_path):
    one = make_asking(raw, tmp_path / "results", {"scan_01": PLANES[:1], "scan_02": PLANES[:1]}, (None, None))
    (one / "expert/scan_01.nii.gz").unlink()
    found = page(raw, tmp_path, trainings=[one])
    assert [row[-1] for row in found.tables["by-training"][1:]] == ["answer is missing", "drawn for this training"]
    assert found.tables["simulated"][1][1] == "–", "a file that does not say when"
    (one / "asked.json").write_text('[{"round": 0}]')
    found = page(raw, tmp_path, trainings=[one])
    assert str(one / "asked.json") in found.text and "simulated" not in found.tables


def test_a_training_that_asked_persons_names_its_rounds(raw, tmp_path):
    training = make_training(tmp_path / "results")
    request = asked.ask(raw, {"scan_01": PLANES})
    (training / "asked.json").write_text(json.dumps([asdict(request) | {"epochs_trained": 3}]))
    found = page(raw, tmp_path, trainings=[training])
    assert "fold 0 asked persons while it trained: round 0 after 3 epochs." in found.text
    assert "simulated" not in found.tables and "simulated expert" not in found.text


def test_the_generalist_is_compared_with_the_expert_at_the_last_relabelling_before_a_question():
    name, nan = "round/expert_dice/class_", float("nan")
    log = [{"epoch": 0, f"{name}1": 0.2, f"{name}2": 0.4}, {"epoch": 1, f"{name}1": nan}, {"epoch": 2, f"{name}1": 0.9}]
    assert agreement_before(log, 1) == agreement_before(log, 2) == pytest.approx(0.3)
    assert agreement_before(log, 3) == 0.9
    assert np.isnan([agreement_before(log, 0), agreement_before([], 3), agreement_before(log, None)]).all()


def test_status_counts_what_simulated_experts_were_asked_in_one_line(nnunet_folders, capsys):
    raw = asked.make_raw(nnunet_folders["nnUNet_raw"])
    assert cli.main(["status", "-d", "1"]) == 0
    assert "simulated" not in capsys.readouterr().out
    results = nnunet_folders["nnUNet_results"] / raw.folder.name
    make_asking(raw, results, {"scan_01": PLANES, "scan_02": PLANES[:2]}, (1, 2))
    assert cli.main(["status", "-d", "1"]) == 0
    assert "trainings that asked: 1, rounds: 2, planes: 5; see gmabs report" in capsys.readouterr().out


def test_a_training_shows_its_figures(raw, tmp_path):
    one = make_training(tmp_path / "results")
    two = make_training(tmp_path / "results", "nnUNetTrainerGMABS__nnUNetPlans__3d_fullres/fold_1", LOG[:1])
    (two / "checkpoint_final.pth").touch()
    (two / "validation").mkdir()
    (two / "validation/summary.json").write_text('{"foreground_mean": {"Dice": 0.3456}}')
    found = page(raw, tmp_path, trainings=[one, two])
    row = ["nnUNetTrainerGMABS", "nnUNetPlans, 3d_fullres"]
    assert found.tables["overview"][1:] == [
        [*row, "0", "not finished: 2 of 2 epochs", "teacher", "62.5", "–", "1"],
        [*row, "1", "finished", "teacher", "25.0", "34.6", "–"],
    ]
    assert found.tables["agreement"][1:3] == [["views across axis 0", "50.0", "–"], ["left, views fused", "87.5", "–"]]
    assert "loss/supervised" not in found.text, "columns have names for people"
    assert "All trainings have the same settings." in found.text


def looks(spy):
    """Label, colour, line style and marker of every curve that was drawn, and each figure's legend."""
    figures = [call.args[0] for call in spy.call_args_list]
    lines = [line for figure in figures for axes in figure.axes for line in axes.lines]
    legends = [legend for figure in figures for legend in (*figure.legends, *(a.get_legend() for a in figure.axes))]
    said = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    return [(line.get_label(), line.get_color(), str(line._dash_pattern), line.get_marker()) for line in lines], said


@pytest.fixture
def spy():
    with mock.patch.object(curves, "as_svg", wraps=curves.as_svg) as as_svg:
        yield as_svg


def test_trainings_of_one_trainer_are_called_by_what_differs(raw, tmp_path, spy):
    names = [
        "nnUNetTrainerGMABS__nnUNetPlans__2d",
        "nnUNetTrainerGMABS__nnUNetPlans__3d_fullres",
        "nnUNetTrainerGMABS__nnUNetPlansBig__3d_fullres",
        "nnUNetTrainer_Mine__nnUNetPlans__2d",
    ]
    folders = [make_training(tmp_path, f"{name}/fold_0", seed=seed) for seed, name in enumerate(names)]
    curves.pseudo_dice_of_all([read_training(folder, Damaged()) for folder in folders])
    called = [
        "GMABS, 2d, nnUNetPlans, fold 0",
        "GMABS, 3d_fullres, nnUNetPlans, fold 0",
        "GMABS, 3d_fullres, nnUNetPlansBig, fold 0",
        "_Mine, 2d, nnUNetPlans, fold 0",
    ]
    lines, legend = looks(spy)
    assert [name.strip() for name in legend] == called
    assert len({look[1:] for look in lines}) == 4
    found = page(raw, tmp_path, trainings=folders)
    assert found.tables["settings"][0] == ["Setting", *called]
    assert len(set(re.findall(r"<h3>(nnUNetTrainer[^<]*)</h3>", found.html))) == 4


def test_what_is_the_same_in_all_trainings_is_no_part_of_their_names(tmp_path):
    def called(*folders):
        return names_apart([Training(tmp_path / f, "nnUNetTrainerX", "p", "2d", f[-1]) for f in folders])

    assert called("d/x__p__2d/fold_0", "d/x__p__2d/fold_1") == ["X, fold 0", "X, fold 1"]
    assert called("one/d/x__p__2d/fold_0", "two/d/x__p__2d/fold_0") == ["X, one/d, fold 0", "X, two/d, fold 0"]
    assert called() == []


def test_thirty_curves_and_the_five_folds_of_twelve_models_all_look_different(tmp_path, spy):
    log = [{"epoch": e, **{f"round/expert_dice/class_{k}": k / 40 for k in range(1, 31)}} for e in range(3)]
    one = read_training(make_training(tmp_path / "one", log=log), Damaged())
    curves.model_curves([one], {k: f"_organ {k}" for k in range(1, 31)})
    lines, legend = looks(spy)
    assert len({look[1:] for look in lines}) == len(lines) == len(legend) == 30
    spy.reset_mock()
    rows = [{"epoch": epoch, "pseudo_dice/teacher": 0.5} for epoch in range(40)]
    models = [(f"nnUNetTrainer{m}__p__2d", fold) for m in range(12) for fold in range(5)]
    curves.pseudo_dice_of_all([Training(tmp_path / m / f"fold_{f}", m, "p", "2d", str(f), log=rows) for m, f in models])
    lines, legend = looks(spy)
    assert len({look[1:] for look in lines}) == len(lines) == len(legend) == 60


def test_every_class_is_drawn_and_named_also_the_thirtieth_and_those_of_regions(tmp_path):
    labels = {"background": 0, **{f"organ {k}": k for k in range(1, 31)}, "ignore": 31}
    many = raw_data.write_raw(tmp_path / "Dataset001_A", 1, (), labels)
    drawn = np.full(raw_data.scan_shape(0), 31, np.uint8)
    drawn[6] = 0
    drawn[6, 3:6, 3:6] = 30
    raw_data.write_image(many / "labelsTr/scan_00.nii.gz", drawn, raw_data.scan_spacing(0))
    with mock.patch("nnunet_gmabs.report.page.planes.class_colour", wraps=class_colour) as asked_for:
        found = page(RawFolder(many), tmp_path)
    assert re.findall(r"</span>(organ \d+)</li>", found.html)[:30] == list(labels)[1:-1]
    assert mock.call(30) in asked_for.call_args_list
    regions = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    few = page(RawFolder(raw_data.write_raw(tmp_path / "Dataset002_B", 1, (0,), regions)), tmp_path)
    assert re.findall(r"</span>([^<]*)</li>", few.html)[:2] == ["whole", "core"]


def test_a_damaged_log_is_named_and_the_rest_is_shown(raw, tmp_path):
    good = make_training(tmp_path / "results")
    bad = make_training(tmp_path / "results", "nnUNetTrainerSparse__nnUNetPlans__3d_fullres/fold_0")
    (bad / "gmabs_log.csv").write_text("epoch,loss/supervised\n0,0.5\n1,0.\x00x\n")
    (bad / "gmabs.json").write_text('{"config": {"num_epo')
    (bad / "prompts_round_001.png").write_bytes(b"\x89PNG\r\n\x1a\nbut no more")
    found = page(raw, tmp_path, trainings=[good, bad])
    for name in ("gmabs_log.csv", "gmabs.json", "prompts_round_001.png"):
        assert str(bad / name) in found.text
    assert str(good) not in found.text.split("What the experts were asked")[0]
    assert [line[0] for line in found.tables["overview"][1:]] == ["nnUNetTrainerGMABS", "nnUNetTrainerSparse"]
    assert "Pseudo Dice of every training" in found.text


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "no column epoch"),
        ("time,loss\n1,2\n", "no column epoch"),
        ("epoch,loss/a\n0,1\n1\n", "line 3 has 1 values for 2 columns"),
        ("epoch,loss/a\n0,abc\n", "'abc' is no number"),
        ("epoch,loss/a\n,1\n", "line 2 has no epoch"),
    ],
)
def test_a_log_that_is_no_log(tmp_path, content, said):
    path = tmp_path / "gmabs_log.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as error:
        read_log(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("line", ["no json\n", '{"event": "merged", "time": "t", "who": "w", "round": 0}\n', "[]\n"])
def test_a_damaged_ledger_is_named_and_the_requests_are_shown(raw, tmp_path, line):
    asked.ask(raw, {"scan_01": PLANES})
    ledger = raw.folder / "gmabs/rounds.jsonl"
    ledger.write_text(ledger.read_text() + line)
    found = page(raw, tmp_path)
    assert str(ledger) in found.text and found.tables["budget"][1][4] == "3"


@pytest.mark.parametrize(
    ("fold", "folds", "note", "sentence", "mark"),
    [
        ("0", make_folds(["scan_00", "scan_01"]), ", also trained on", "learned from those marked", "also trained on"),
        ("all", None, ", also trained on", "learned from those marked", "also trained on"),
        ("0", [{"train": ["scan_00"], "val": ["scan_01"]}], ", not trained on", "did not learn from them", ""),
        (
            "0",
            [{"train": ["scan_01", "scan_02"], "val": ["scan_01"]}],
            ", also trained on",
            "learned from those",
            "also",
        ),
        ("0", None, "", "", ""),
        ("1", [{"train": ["scan_00"], "val": ["scan_01"]}], "", "", ""),  # the splits have no such fold
        ("0", [{"train": ["scan_01"], "val": ["scan_00"]}], "", "", ""),  # made anew since: it was validated on others
    ],
)
def test_validation_scans_are_said_to_be_unseen_only_where_they_are(raw, tmp_path, fold, folds, note, sentence, mark):
    pre = tmp_path / "pre"
    pre.mkdir()
    if folds:
        (pre / "splits_final.json").write_text(json.dumps(folds))
    training = make_training(tmp_path, f"nnUNetTrainerGMABS__nnUNetPlans__3d_fullres/fold_{fold}")
    write_predictions(raw, training / "validation", [1], 0)
    (training / "validation/summary.json").write_text('{"foreground_mean": {"Dice": 0.5}}')
    found = page(raw, tmp_path, trainings=[training], preprocessed=pre)
    assert f"scan_01 validation scan{note}" in found.text
    claims = (", not trained on", ", also trained on", "did not learn from them", "learned from those marked")
    assert sentence in found.text and any(words in found.text for words in claims) == bool(note)
    dice = found.tables["overview"][1][6]
    assert dice.startswith("50.0") and mark in dice and (mark or dice == "50.0")


def test_an_image_of_one_slice_is_shown_as_one_plane():
    image = np.random.default_rng(0).normal(size=(6, 1, 7))
    labels = np.zeros(image.shape, int)
    labels[2:4, 0, 3:5] = 1
    look = Look("flat", image, (1.0, 1.0, 1.0), None, labels, 3)
    assert look.drawn() == [(1, 0)] == chosen_planes(look, labels, look.drawn())
    assert chosen_planes(look, None) == chosen_planes(look, labels) == [(1, 0)]
    assert draw_planes(look, [(1, 0)], {1: "left"}).startswith("data:image/png;base64,")


def test_splits_that_are_damaged_are_named_and_nothing_is_claimed(raw, tmp_path):
    (tmp_path / "splits_final.json").write_text("{")
    training = make_training(tmp_path)
    write_predictions(raw, training / "validation", [1], 0)
    found = page(raw, tmp_path, trainings=[training], preprocessed=tmp_path)
    assert str(tmp_path / "splits_final.json") in found.text and "validation scan," not in found.text


def test_a_damaged_answer_and_request_are_named(raw, tmp_path):
    asked.ask(raw, {"scan_01": PLANES, "scan_02": PLANES})
    asked.ask(raw, {"scan_03": PLANES})
    asked.answer(raw, 0, "scan_01", PLANES)
    answer = asked.answer(raw, 0, "scan_02", PLANES)[1]
    answer.write_text("{")
    request = raw.folder / "gmabs/requests/round_001/request.json"
    request.write_text("[]")
    found = page(raw, tmp_path)
    assert str(answer) in found.text and str(request) in found.text
    assert found.tables["budget"][1][5] == "3" and len(found.tables["budget"]) == 3


def write_predictions(raw, folder, numbers, shift):
    for number in numbers:
        _, properties = raw.read_image(raw_data.name(number))
        labels = np.roll(raw_data.scan_labels(number), shift, axis=2)
        folder.mkdir(exist_ok=True)
        raw.write_labels(labels, folder / f"{raw_data.name(number)}.nii.gz", properties)
    return Predictions(folder.name, folder)


def test_dice_where_the_truth_is_known(raw, tmp_path):
    truth = write_predictions(raw, raw.folder / "labelsTr_dense", range(4), 0)
    exact = write_predictions(raw, tmp_path / "exact", range(3), 0)
    moved = write_predictions(raw, tmp_path / "moved", range(4), 1)
    [table] = truth_tables(raw, [moved, exact], Damaged())
    # boxes 3 and 4 voxels wide, moved by 1: 2/3 and 3/4
    assert table.truth == truth.name and not table.unseen
    assert table.scored[0].class_means == pytest.approx({1: 2 / 3, 2: 3 / 4})
    assert table.scored[1].mean == 1.0 and table.scored[1].without == ["scan_03"]
    assert [c.label for c in table.compared] == [None, 1, 2]
    result = table.compared[0].result
    assert result.mean == pytest.approx(1 - (2 / 3 + 3 / 4) / 2) and result.scans == 3
    found = page(raw, tmp_path, predictions=[moved, exact])
    assert found.tables["dice"][1:3] == [
        ["moved", "4", "66.7", "75.0", "70.8"],
        ["exact", "3", "100.0", "100.0", "100.0"],
    ]
    compared = found.tables["compared"][1]
    assert compared[:3] == ["exact against moved", "mean of all", "+29.2"] and compared[-1] == "too few scans to tell"


def test_one_name_twice_is_two_seeds_and_an_unreadable_prediction_is_named(raw, tmp_path):
    write_predictions(raw, raw.folder / "labelsTs", range(3), 0)
    moved = write_predictions(raw, tmp_path / "moved", range(3), 1)
    again = Predictions("moved", write_predictions(raw, tmp_path / "again", range(3), 2).folder)
    (again.folder / "scan_02.nii.gz").write_bytes(b"no image")
    damaged = Damaged()
    [table] = truth_tables(raw, [moved, again], damaged)
    assert [one.seed for one in table.scored] == [0, 1] and not table.compared and table.unseen
    assert len(damaged.messages) == 1 and str(again.folder / "scan_02.nii.gz") in damaged.messages[0]
    assert list(table.scored[1].dice) == ["scan_00", "scan_01"]


def test_settings_that_differ_are_told_apart():
    def training(**settings):
        return Training(Path("t"), "t", "p", "c", "0", settings)

    one = training(**{"seed": 0, "relabel": None, "teacher.max_decay": 0.99, "on": True})
    two = training(**{"seed": 1, "relabel.every": 0.06, "teacher.max_decay": 0.99, "on": True})
    differing, same = compare_settings([one, two])
    assert differing == [("seed", ["0", "1"]), ("relabel", ["off", "–"]), ("relabel.every", ["off", "0.06"])]
    assert same == [("teacher.max_decay", ["0.99", "0.99"]), ("on", ["yes", "yes"])]


def test_names_of_curves_for_people():
    assert curve_name("gradient_ratio/consistency_peer", {}) == curve_name("loss/consistency", {}) + ", second network"
    doubted = "expert's labels that confident learning would doubt (they are kept)"
    assert curve_name("share/doubted_expert", {}) == doubted
    assert curve_name("share/kept_class_0", {}) == "taught by the other network, background"
    assert curve_name("loss/some_new_term", {}) == "some new term"
    assert curve_name("share/labelled_voxels", {}) == "labelled: drawn by the expert, or padding"


def test_the_command_writes_beside_the_trainings_or_into_the_data_set(nnunet_folders, capsys):
    raw = asked.make_raw(nnunet_folders["nnUNet_raw"])
    assert cli.main(["report", "-d", "1"]) == 0
    assert (raw.folder / "gmabs/gmabs_report.html").is_file()
    results = nnunet_folders["nnUNet_results"] / raw.folder.name
    training = make_training(results)
    (training / "gmabs_log.csv").write_text("")
    assert cli.main(["report", "-d", "1"]) == 0
    found = Page(results / "gmabs_report.html")
    assert found.tables["overview"][1][0] == "nnUNetTrainerGMABS"
    said = capsys.readouterr().out
    assert f"written: {results / 'gmabs_report.html'}" in said and f"left out: {training / 'gmabs_log.csv'}" in said
    assert sorted(p.name for p in results.iterdir()) == ["gmabs_report.html", training.parent.name], "no leftovers"


def test_wrong_arguments_name_the_cure(tmp_path, raw, capsys):
    with pytest.raises(InputError, match="NAME=FOLDER"):
        parse_predictions(["a=/nowhere"])
    with pytest.raises(InputError, match="holds no fold_"):
        named_trainings([tmp_path])
    assert cli.main(["report", "-d", str(raw.folder), "-o", str(tmp_path / "no/report.html")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_pictures_of_rounds_first_and_last_only(tmp_path):
    folder = make_training(tmp_path)
    for number in (1, 2, 3):
        (folder / f"prompts_round_{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"IEND\xaeB`\x82")
    assert [p.title for p in read_training(folder, Damaged()).prompts] == ["prompts round 001", "prompts round 003"]
