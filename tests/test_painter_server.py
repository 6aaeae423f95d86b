"""The painter's server as a browser meets it: who is let in, what is kept, what becomes of it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import painter_tools as tools
import pytest
import raw_data
import SimpleITK as sitk

from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.painter import claims, compose, drafts
from nnunet_gmabs.annotation.painter.describe import classes
from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.painter.refused import RefusedError
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import arrived_answers, round_folder
from nnunet_gmabs.annotation.sources import waiting_sources
from nnunet_gmabs.cli import main
from nnunet_gmabs.errors import InputError

AXIAL, CORONAL, SAGITTAL = tools.PLANES
NAME = tools.NAME
FINISH = f"/api/scans/{NAME}/finish"


@pytest.fixture
def raw(tmp_path):
    return tools.make_round(tmp_path / "data", proposals=[0])


@pytest.fixture
def client(raw):
    with tools.client_of(raw) as client:
        yield client


def answer_of(raw, name=NAME):
    path = round_folder(raw.folder, 0) / "answers" / f"{name}.nii.gz"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def shape_of(client, plane):
    return client.picture(plane, "mask").shape


def corner(client, plane, value=1):
    """A picture with a block in its upper left corner."""
    picture = np.zeros(shape_of(client, plane), np.uint8)
    picture[:3, :2] = value
    return picture


# Who is let in


def test_nothing_is_told_without_the_sessions_cookie(client):
    client.cookie = None
    for method, path in (("GET", "/"), ("GET", "/api/round"), ("GET", "/page/js/main.js"), ("POST", FINISH)):
        status, body, _ = client.send(method, path, Cookie=None)
        assert status == 401 and b"gmabs annotate" in body
    assert client.send("GET", "/api/round", Cookie=f"gmabs_painter_{client.port}=wrong")[0] == 401


def test_the_address_works_once_and_gives_a_cookie_that_pages_cannot_read(raw):
    with tools.serving(Painter(raw, 0, "anna")) as door:
        address, announced = door.address, []
        door.announce = announced.append
        first = tools.Client(door.port, address)
        _, _, headers = first.send("GET", announced[0].removeprefix(first.origin), Cookie=None)
        assert "HttpOnly" in headers["set-cookie"] and "samesite=strict" in headers["set-cookie"].lower()
        used = tools.Client(door.port)
        status, body, headers = used.send("GET", address.removeprefix(first.origin))
        assert status == 401 and b"used already" in body and "set-cookie" not in headers
        assert len(announced) == 2 and announced[0] != announced[1] != address
        assert first.json("GET", "/api/round")["annotator"] == "anna"


def test_a_name_that_points_at_this_computer_is_not_enough(client):
    for host in ("evil.example", f"evil.example:{client.port}", "127.0.0.1", f"127.0.0.1:{client.port + 1}", ""):
        assert client.send("GET", "/api/round", Host=host)[0] in (400, 403)
    assert client.send("GET", "/api/round", Host=f"localhost:{client.port}")[0] == 200


def test_other_pages_cannot_make_the_browser_change_anything(client):
    client.open()
    path = f"{tools.path_of(AXIAL)}/done"
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{client.port + 1}", None):
        assert client.send("POST", path, '{"done": true, "base": 0}', Origin=origin)[0] == 403
    assert client.send("GET", "/api/round", Origin="https://evil.example")[0] == 403
    assert not client.open()["planes"][0]["done"]


def test_the_page_may_load_nothing_from_elsewhere_and_has_no_inline_code(client):
    _, page, headers = client.send("GET", "/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert b"style=" not in page and page.count(b"<script") == page.count(b'<script type="module" src=')
    assert b"http:" not in page and b"https:" not in page


# What is asked


def test_the_round_is_described(client):
    described = client.json("GET", "/api/round")
    assert [(c["value"], c["name"]) for c in described["classes"]] == [(1, "left"), (2, "right")]
    assert [s["identifier"] for s in described["scans"]] == ["scan_00", "scan_01"]
    assert {s["state"] for s in described["scans"]} == {"free"}
    assert described["generalist"] == {"available": False, "why_not": ""}


def test_values_of_regions_are_named_after_the_smallest(tmp_path):
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3, "ignore": 4}
    for labels, names in (
        (regions, ["whole", "core", "tip"]),
        (dict(reversed(regions.items())), ["whole", "core", "tip"]),
        ({**regions, "core": [3], "tip": [3]}, ["whole 1", "whole 2", "core"]),
    ):
        raw_data.write_dataset_json(tmp_path, labels)
        found = classes(RawFolder(tmp_path))
        assert [(c["value"], c["name"]) for c in found] == list(zip((1, 2, 3), names, strict=True))
        assert len({c["colour"] for c in found}) == 3


def test_only_requested_planes_can_be_painted_and_only_their_neighbours_looked_at(client):
    client.open()
    assert client.send("GET", f"{tools.path_of((0, 11))}/image")[0] == 200
    for plane in ((0, 0), (0, 12), (1, 14)):
        assert client.send("GET", f"{tools.path_of(plane)}/image")[0] == 404
    assert client.send("GET", f"{tools.path_of(AXIAL)}/image?channel=1")[0] == 404
    for method, what in (("GET", "mask"), ("PUT", "mask?base=0"), ("GET", "proposal"), ("POST", "step")):
        body = None if method == "GET" else '{"by": 1, "base": 0}'
        assert client.send(method, f"{tools.path_of((0, 7))}/{what}", body)[0] in (404, 422)
    assert client.send("POST", "/api/scans/scan_05/open", "{}")[0] == 404
    assert client.send("POST", "/api/scans/..%2F..%2Fdataset/open", "{}")[0] == 404


@pytest.mark.parametrize("path", ["/page/..%2Fserver.py", "/page/../server.py", "/page/%2e%2e/server.py"])
def test_only_the_pages_own_files_are_served(client, path):
    assert client.send("GET", path)[0] == 404


# What is kept


def test_every_stroke_is_there_after_a_restart_and_undo_goes_on(raw):
    with tools.client_of(raw) as client:
        client.open()
        first, second = corner(client, AXIAL), corner(client, AXIAL, 2)
        client.save(AXIAL, first, 0)
        client.save(AXIAL, second, 1)
    with tools.client_of(raw) as client:
        assert client.open()["planes"][0]["version"] == 2
        assert np.array_equal(client.picture(AXIAL, "mask"), second)
        body = json.dumps({"by": -1, "base": 2})
        status, content, headers = client.send("POST", f"{tools.path_of(AXIAL)}/step", body)
        assert status == 200 and content == first.tobytes()
        state = json.loads(headers["x-state"])
        assert (state["version"], state["can_undo"], state["can_redo"]) == (1, True, True)


def test_nonsense_is_refused_and_changes_nothing(client):
    client.open()
    good = corner(client, AXIAL)
    for picture in (good[:-1], np.pad(good, 1), np.full_like(good, 3), np.full_like(good, 9)):
        client.save(AXIAL, picture, 0, expect=422)
    client.save(AXIAL, good, 4, expect=409)
    for path, body in (("step", "{}"), ("step", "[]"), ("step", "{"), ("step", '{"by": 2, "base": 0}')):
        assert client.send("POST", f"{tools.path_of(AXIAL)}/{path}", body)[0] == 422
    assert client.send("PUT", f"{tools.path_of(AXIAL)}/mask?base=x", good.tobytes())[0] == 422
    assert client.send("POST", f"{tools.path_of(AXIAL)}/step", "x" * 200_000)[0] == 422
    assert client.send("PUT", f"/api/scans/{NAME}/3/1/mask?base=0", good.tobytes())[0] == 404
    assert client.open()["planes"][0]["version"] == 0


def test_a_full_disk_is_told_and_the_stroke_can_be_sent_again(client, monkeypatch):
    client.open()
    picture = corner(client, AXIAL)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drafts, "replace_atomically", full)
    assert "No space left" in client.save(AXIAL, picture, 0, expect=500)["error"]
    monkeypatch.undo()
    assert client.save(AXIAL, picture, 0)["version"] == 1


def test_active_time_is_added_up_and_survives(raw):
    with tools.client_of(raw) as client:
        client.open()
        client.json("POST", f"/api/scans/{NAME}/time", {"seconds": 9.5})
        client.json("POST", f"/api/scans/{NAME}/time", {"seconds": -5})
        client.json("POST", f"/api/scans/{NAME}/time", {"seconds": 1e6}, expect=200)  # no more than two minutes at once
    with tools.client_of(raw) as client:
        assert client.open()["seconds"] == pytest.approx(129.5)


def test_crossings_show_other_planes_and_earlier_rounds(tmp_path):
    raw = tools.make_round(tmp_path / "data", labelled=[0], planes=[(0, 5), (1, 7)])
    with tools.client_of(raw) as client:
        client.open()
        picture = client.picture((0, 5), "crossings")
        drawn = raw_data.scan_labels(0)[5].astype(int)
        known = np.full(drawn.shape, 255)
        known[8], known[:, 9] = drawn[8], drawn[:, 9]
        view = Painter(raw, 0, "x").scan(NAME).views[0]
        assert np.array_equal(picture, view.to_screen(known))
        client.save((1, 7), np.full(shape_of(client, (1, 7)), 2), 0)
        known[7] = 2
        assert np.array_equal(client.picture((0, 5), "crossings"), view.to_screen(known))


def test_a_merged_plane_that_is_corrected_does_not_disagree_with_itself(raw):
    painter = Painter(raw, 0, "anna")
    painter.set_done(NAME, AXIAL, True, 0)
    painter.finish(NAME)
    merge(raw, lambda: waiting_sources(raw))
    again = Painter(raw, 0, "anna")
    again.set_done(NAME, AXIAL, False, 0)
    again.save(NAME, AXIAL, np.ones_like(again.picture_of_draft(NAME, AXIAL)), 0, "brush")
    assert (again.picture_of_crossings(NAME, AXIAL) == compose.NOTHING).all(), "no other plane says anything"
    row = again.picture_of_crossings(NAME, CORONAL)
    assert (row != compose.NOTHING).sum() == raw_data.scan_shape(0)[2] and set(np.unique(row)) == {1, compose.NOTHING}


def test_the_proposal_is_shown_and_its_acceptance_recorded(client, raw):
    client.open()
    proposal = client.picture(AXIAL, "proposal")
    assert set(np.unique(proposal)) == {0, 1, 2}
    client.save(AXIAL, proposal, 0, action="proposal")
    client.done(AXIAL, 1)
    client.done(CORONAL, 0)
    client.json("POST", FINISH, {"anyway": True})
    (answer,) = arrived_answers(round_folder(raw.folder, 0))
    assert answer.proposal_accepted == (AXIAL,) and answer.planes_done == (AXIAL, CORONAL)
    assert client.send("GET", "/api/scans/scan_01/0/6/proposal")[0] == 404


# What becomes of it


def test_the_answer_holds_done_planes_only_and_unpainted_is_background_there(client, raw):
    client.open()
    client.save(AXIAL, corner(client, AXIAL), 0)
    client.save(CORONAL, corner(client, CORONAL), 0)
    client.json("POST", f"/api/scans/{NAME}/time", {"seconds": 12})
    client.json("POST", FINISH, {}, expect=409)
    client.done(AXIAL, 1)
    assert client.json("POST", FINISH, {})["finished"]
    labels = answer_of(raw)
    assert labels.shape == raw_data.scan_shape(0)
    assert (np.delete(labels, 6, axis=0) == raw_data.IGNORE).all()
    view = Painter(raw, 0, "x").scan(NAME).views[0]
    assert np.array_equal(view.to_screen(labels[6]), corner(client, AXIAL))
    (answer,) = arrived_answers(round_folder(raw.folder, 0))
    assert (answer.identifier, answer.planes_done, answer.annotator) == (NAME, (AXIAL,), "anna")
    assert (answer.seconds, answer.tool, answer.proposal_accepted) == (12, "gmabs annotate", ())
    assert not list(raw.folder.glob("labelsTr/*"))


def test_planes_that_disagree_are_only_finished_when_that_is_said(client, raw):
    client.open()
    full = np.ones(shape_of(client, AXIAL), np.uint8)
    client.save(AXIAL, full, 0)
    client.done(AXIAL, 1)
    client.done(CORONAL, 0)
    assert client.json("POST", FINISH, {}) == {"finished": False, "disagreements": raw_data.scan_shape(0)[2]}
    assert not (round_folder(raw.folder, 0) / "answers").exists()
    assert client.json("POST", FINISH, {"anyway": True})["finished"]
    assert (answer_of(raw)[6, 8] == 0).all()  # the coronal plane was edited last


def test_a_finished_scan_can_be_opened_again_and_finished_anew(client, raw):
    client.open()
    client.done(AXIAL, 0)
    client.json("POST", FINISH, {})
    client.json("POST", f"/api/scans/{NAME}/time", {"seconds": 1})  # said late, this does not claim it anew
    assert client.json("GET", "/api/round")["scans"][0]["state"] == "finished"
    client.open()
    client.done(CORONAL, 0)
    client.json("POST", FINISH, {})
    assert arrived_answers(round_folder(raw.folder, 0))[0].planes_done == (AXIAL, CORONAL)


def test_two_annotators_paint_different_scans_and_overwrite_nothing(raw):
    with tools.client_of(raw, "anna") as anna, tools.client_of(raw, "bert") as bert:
        anna.open()
        anna.save(AXIAL, corner(anna, AXIAL), 0)
        assert "anna" in bert.json("POST", f"/api/scans/{NAME}/open", {}, expect=409)["error"]
        picture = np.zeros(shape_of(anna, AXIAL), np.uint8)
        bert.save(AXIAL, picture, 0, expect=409)
        bert.json("POST", FINISH, {}, expect=409)
        assert bert.json("GET", "/api/round")["scans"][0]["by"] == "anna"
        assert bert.open("scan_01")["identifier"] == "scan_01"
        anna.json("POST", f"/api/scans/{NAME}/release", {})
        assert not bert.picture(AXIAL, "mask").any()  # drafts are each annotator's own
        assert np.array_equal(Painter(raw, 0, "anna").picture_of_draft(NAME, AXIAL), corner(bert, AXIAL))
        bert.done(AXIAL, 0)
        bert.json("POST", FINISH, {})
        assert anna.json("GET", "/api/round")["scans"][0]["planes_done"] == 1
        assert "bert" in anna.json("POST", f"/api/scans/{NAME}/open", {}, expect=409)["error"]
        assert arrived_answers(round_folder(raw.folder, 0))[0].annotator == "bert"


def test_painting_holds_the_claim_even_when_it_had_expired(raw):
    painter = Painter(raw, 0, "anna")
    painter.open(NAME)
    painter.claims.clock = lambda: 0.0  # long ago
    painter.claims.give_back(NAME)
    painter.add_seconds(NAME, 1)
    assert painter.claims.holder(NAME)[0] == "anna"


def test_who_comes_back_late_paints_no_scan_that_somebody_else_has_finished(raw):
    anna, bert = Painter(raw, 0, "anna"), Painter(raw, 0, "bert")
    anna.open(NAME)
    picture = anna.picture_of_draft(NAME, AXIAL)
    anna.save(NAME, AXIAL, picture, 0, "brush")
    bert.claims.clock = lambda: time.time() + 2 * claims.LASTS_S  # anna's claim has expired
    bert.open(NAME)
    bert.set_done(NAME, AXIAL, True, 0)
    bert.finish(NAME)
    for change in (
        lambda: anna.save(NAME, AXIAL, picture + 1, 1, "brush"),
        lambda: anna.step(NAME, AXIAL, -1, 1),
        lambda: anna.set_done(NAME, AXIAL, True, 1),
    ):
        with pytest.raises(RefusedError, match=f"{NAME} was finished by bert; choose another"):
            change()
    assert anna.state_of(NAME)[:2] == ("finished", "bert") and anna.states(NAME)[0].version == 1


# The generalist


def test_the_generalist_sees_the_plane_and_its_neighbours_as_shown(raw):
    seen = []

    def propose(planes, pixel_mm, box_xyxy, points_xy, point_labels):
        seen.append((planes, pixel_mm, box_xyxy, points_xy, point_labels))
        mask = np.zeros(planes.shape[1:], bool)
        mask[2:5, 3:7] = True
        return mask, 0.75

    path = f"{tools.path_of(AXIAL)}/ask"
    window = {"channel": 0, "level": 100, "width": 200}
    with tools.client_of(raw, propose=propose) as client:
        client.open()
        prompt = {"box": [1, 2, 9, 8], "points": [[3, 4], [0, 0]], "point_labels": [1, 0]}
        status, body, headers = client.send("POST", path, json.dumps(window | prompt))
        assert status == 200 and headers["x-quality"] == "0.750"
        planes, pixel_mm, box, points, labels = seen[0]
        mask = np.frombuffer(body, np.uint8).reshape(planes.shape[1:])
        assert mask.sum() == 12 and mask[2:5, 3:7].all()
        scan = Painter(raw, 0, "x").scan(NAME)
        grey = [scan.views[0].to_screen(raw_data.scan_image(0)[i]) for i in (5, 6, 7)]
        assert np.abs(planes - np.clip(np.array(grey) * 255 / 200, 0, 255)).max() <= 1
        assert pixel_mm == scan.pixel_mm(0)
        assert (box.tolist(), points.tolist(), labels.tolist()) == ([1, 2, 9, 8], [[3, 4], [0, 0]], [1, 0])
        for wrong in (
            {},
            {"points": [[1, 1]], "point_labels": [0]},
            {"box": [0, 0, 99, 5]},
            {"box": [0, 0, 5]},
            {"points": [[1, 1]], "point_labels": []},
            {"box": ["NaN", 0, 1, 1]},
        ):
            assert client.send("POST", path, json.dumps(window | wrong))[0] == 422
        assert len(seen) == 1


def test_without_a_generalist_the_page_is_told_why(raw):
    with tools.client_of(raw, why_not="no weights") as client:
        client.open()
        assert client.json("GET", "/api/round")["generalist"] == {"available": False, "why_not": "no weights"}
        body = {"box": [0, 0, 2, 2], "level": 0, "width": 1}
        assert "no weights" in client.json("POST", f"{tools.path_of(AXIAL)}/ask", body, expect=409)["error"]


# The command


def test_the_command_names_what_is_missing(raw, nnunet_folders, capsys):
    empty = nnunet_folders["nnUNet_raw"] / "Dataset001_Empty"
    raw_data.write_raw(empty, 1, (), raw_data.SPARSE_LABELS)
    for arguments, words in (
        (["-d", "1"], "gmabs ask"),
        (["-d", str(raw.folder), "--round", "7"], "there is no round 7"),
        (["-d", str(raw.folder), "--annotator", "../anna", "--generalist", "none"], "letters"),
    ):
        assert main(["annotate", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_ends_the_command_quietly_and_a_second_one_for_the_same_annotator_is_refused(raw):
    command = ["annotate", "-d", str(raw.folder), "--annotator", "anna", "--port", "0", "--generalist", "none"]
    start = [sys.executable, "-m", "nnunet_gmabs.cli", *command]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("open http://127.0.0.1:"):
                break
        second = subprocess.run(start, capture_output=True, text=True)
        assert second.returncode == 2 and "running already" in second.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors == ""


def test_a_port_in_use_is_named():
    with tools.listen(0) as taken, pytest.raises(InputError, match="--port"):
        tools.listen(taken.getsockname()[1])
