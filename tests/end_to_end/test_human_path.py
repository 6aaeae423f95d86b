"""A person's whole way: asked before there is a model, painting, training, asked again, a kill; no stroke is lost."""

import os
import pickle
import signal
import time
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import raw_data
import tiny
from painter_browser import LEFT, RIGHT, errors_of, expected_answer, line, needs_browser, painter_page
from painter_browser import picture_of as picture

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import arrived_answers, existing_rounds, read_request, round_folder
from nnunet_gmabs.data.audit import compare
from nnunet_gmabs.data.expert import decode, expert_file, read_expert
from nnunet_gmabs.data.planning import load_plans

pytestmark = [pytest.mark.slow, needs_browser]
ACTIVE = "nnUNetTrainerGMABSActive"
EPOCHS = 10
# one question, after the first epoch: two planes of one scan
SETTINGS = tiny.MEAN_TEACHER_SETTINGS | {
    "num_epochs": EPOCHS,
    "generalist": {"name": "walker"},
    "relabel": {"first": 0.1, "first_iterations": 0, "every": 1.0},
    "active": {
        "expert": "person",
        "strategy": "foreground-random",
        "scans_per_round": 1,
        "planes_per_scan": 2,
        "budget_planes": 2,
        "first": 1 / EPOCHS,
    },
}
STROKES = [(line(4, range(3, 9)), LEFT), (line(8, range(2, 5)), RIGHT)]


def test_from_a_data_set_without_labels_to_a_model_that_has_asked_for_more(tmp_path):
    project = tiny.Project(tmp_path, "Dataset120_Path")
    for folder in project.variables().values():
        os.mkdir(folder)
    raw = RawFolder(raw_data.write_raw(project.raw, 5, (), raw_data.LABELS))

    gmabs(project, "ask", "--scans", "2", "--planes", "2")
    drawn = {}
    with painter(raw, 0) as page:
        for scan in read_request(raw.folder, 0).scans:
            drawn[scan.identifier] = paint(page, raw, scan)
            finish(page, scan.identifier)
    assert not (raw.folder / "labelsTr").exists(), "an answer changes nothing before it is merged"
    gmabs(project, "merge")
    raw = RawFolder(raw.folder)  # which has an ignore label now
    gmabs(project, "prepare", "-c", "3d_fullres")
    tiny.write_tiny_plans(project.pre)
    gmabs(project, "prepare", "-c", "3d_fullres", "-p", tiny.PLANS)
    assert_nothing_is_lost(project, raw, drawn)

    one = tiny.Training(project, tmp_path / "run", ACTIVE, settings=SETTINGS)
    command = (*tiny.executable("nnUNetv2_train"), *one.arguments())
    training = tiny.start(*command, environment=one.environment())
    try:
        wait_for(one, training, "asked round 1: ")
        request = read_request(raw.folder, 1)
        assert request.model == str(one.output) and request.number_of_planes == 2
        [scan] = request.scans
        assert scan.identifier not in drawn
        training.send_signal(signal.SIGSTOP)  # it waits while the slow browser paints, so that it asks for little time
        with painter(raw, 1) as page:
            answer = paint(page, raw, scan)
            assert arrived_answers(round_folder(raw.folder, 1)) == []
            training.send_signal(signal.SIGCONT)
            finish(page, scan.identifier)
        wait_for(one, training, "3 labelled scans, 2 unlabelled ones")
        assert f"answered: {scan.identifier}; 3 scans are labelled now" in one.log()
    finally:
        tiny.kill(training)
    assert training.wait() == -signal.SIGKILL and not one.final.exists()
    drawn[scan.identifier] = answer
    assert_nothing_is_lost(project, raw, drawn)

    one.command("--c")
    assert len(tiny.read_log(one)) == EPOCHS and tiny.load(one.final)["current_epoch"] == EPOCHS
    streams = [one.log().count(f"{n} labelled scans, {5 - n} unlabelled ones") for n in (2, 3)]
    assert streams == [1, 2], "labelled from the answer on, and from the resume's first epoch"
    assert existing_rounds(raw.folder) == [0, 1], "a resumed training does not ask again"
    assert_nothing_is_lost(project, raw, drawn)


def gmabs(project, command, *arguments):
    with mock.patch.dict(os.environ, project.variables()):
        assert cli.main([command, "-d", project.number, *arguments]) == 0


@contextmanager
def painter(raw, number):
    """The page with the list of scans of the newest round, which must be this one."""
    with painter_page(raw) as page:
        assert page.text("list-where").endswith(f"round {number}")
        yield page
        assert errors_of(page.driver) == []


def paint(page, raw, scan):
    """Draw both structures on every plane of a scan, and mark each done; the labels that must come of it."""
    page.open_scan(scan.identifier)
    pictures = {}
    for number, plane in enumerate(scan.planes):
        assert page.plane() == plane.plane
        page.keys("[" * 8)  # a brush of one pixel
        for pixels, value in STROKES:
            page.keys(str(value))
            page.gesture(pixels)
        pictures[plane.plane] = picture(raw, plane.plane, STROKES, scan.identifier)
        page.wait_until_saved()
        assert np.array_equal(page.painting(), pictures[plane.plane])
        page.keys("d")
        done = f"{number + 1} of {len(scan.planes)} planes done"
        page.until(f"document.getElementById('finish-note').textContent.startsWith('{done}')", done)
    return expected_answer(raw, pictures, scan.identifier)


def finish(page, name):
    """To the list, through the question about planes that disagree, if it comes."""
    page.click("#finish")
    page.until("document.getElementById('dialog').open || !document.getElementById('list').hidden", "an end")
    if page.driver.execute_script("return document.getElementById('dialog').open"):
        page.click("#dialog-yes")
    page.wait_for_list()
    row = f"document.querySelector('button[data-scan={name}]').closest('tr')"
    page.until(f"{row}.querySelector('.state.finished')", "the finished scan")


def wait_for(one, process, text):
    """Until a training has logged something, while it runs."""
    end = time.monotonic() + tiny.TIMEOUT
    while text not in one.log():
        assert process.poll() is None, f"ended without {text!r}:\n{process.stdout.read()[-3000:]}"
        assert time.monotonic() < end, f"no {text!r} after {tiny.TIMEOUT} s"
        time.sleep(0.05)


def assert_nothing_is_lost(project, raw, drawn):
    """What was painted, and nothing else, is in labelsTr; every voxel of it, with its class, on the training grid."""
    found = {
        path.name.removesuffix(".nii.gz"): raw.read_labels(path)[0]
        for path in (project.raw / "labelsTr").glob("*.nii.gz")
    }
    found = {name: labels for name, labels in found.items() if (labels != raw_data.IGNORE).any()}
    assert found.keys() == drawn.keys()
    plans = load_plans(project.pre, tiny.PLANS)
    configuration = plans.get_configuration("3d_fullres")
    for name, labels in drawn.items():
        np.testing.assert_array_equal(found[name], labels)
        with open(project.pre / configuration.data_identifier / f"{name}.pkl", "rb") as f:
            properties = pickle.load(f)
        values, _ = read_expert(expert_file(project.pre, configuration.data_identifier, name))
        arrived = compare(labels, values[...], properties, plans, configuration, raw_data.IGNORE)
        assert (arrived.lost_voxels, arrived.lost, arrived.outside) == (0, [], [])
        assert set(np.unique(decode(values[0]))) == {0, LEFT, RIGHT, raw_data.IGNORE}
