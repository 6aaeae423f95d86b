"""The expert's loop by the real commands: ask a trained model, answer, merge, prepare; labels arrive everywhere."""

import os
from unittest import mock

import numpy as np
import pytest
import raw_data

from nnunet_gmabs import cli
from nnunet_gmabs.annotation.planes import drawn_planes, keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Answer, read_request, write_answer
from nnunet_gmabs.data.expert import expert_file, labelled_identifiers, read_expert

pytestmark = pytest.mark.slow
FOLDER = "nnUNetPlans_3d_fullres"


def run(project, *arguments):
    with mock.patch.dict(os.environ, project.variables()):
        assert cli.main([*arguments[:1], "-d", project.number, *arguments[1:]]) == 0


def answer_all(raw, number):
    """A person who paints the truth on every plane of a round."""
    for scan in read_request(raw.folder, number).scans:
        planes = [plane.plane for plane in scan.planes]
        _, properties = raw.read_image(scan.identifier)
        labels = keep_planes(raw_data.scan_labels(int(scan.identifier[-2:])), planes, raw_data.IGNORE)
        write_answer(raw, number, Answer(scan.identifier, tuple(planes), "anna", 60.0, "test"), labels, properties)


def labelled(project):
    names = [raw_data.name(number) for number in range(7)]
    return labelled_identifiers(project.pre, FOLDER, names)


def test_ask_a_model_answer_merge_and_prepare(trained, tmp_path, capsys):
    project = trained.project.copy(tmp_path)
    raw = RawFolder(project.raw)
    model = str(trained.output)
    run(project, "ask", "--scans", "2", "--from", model, "--seed", "1")
    request = read_request(raw.folder, 0)
    assert request.strategy == "foreground-random" and request.model == str(trained.output.resolve())
    scans = [scan.identifier for scan in request.scans]
    assert len(set(scans)) == 2 and not set(scans) & {"scan_00", "scan_01", "scan_02"}
    proposal, _ = raw.read_labels(raw.folder / "gmabs/requests/round_000" / request.scans[0].proposal)
    assert proposal.shape == raw_data.scan_shape(int(scans[0][-2:]))

    before = raw_data.snapshot(raw.folder / "labelsTr")
    expert_before = {name: expert_file(project.pre, FOLDER, name).read_bytes() for name in scans}
    answer_all(raw, 0)
    run(project, "merge")
    said = capsys.readouterr().out
    assert "merged: labels of 2 scans changed" in said and FOLDER in said
    assert labelled(project) == ["scan_00", "scan_01", "scan_02", *sorted(scans)], "for a training that runs now"
    for name in scans:
        drawn, _ = raw.read_labels(raw.label_path(name))
        assert set(request.planes_of(name)) <= set(drawn_planes(drawn, raw_data.IGNORE))
        copy = project.pre / "gt_segmentations" / f"{name}.nii.gz"
        assert copy.read_bytes() == raw.label_path(name).read_bytes()
        _, metadata = read_expert(expert_file(project.pre, FOLDER, name))
        assert sum(n for _, n in metadata["voxels"].items()) > 0
    run(project, "prepare", "-c", "3d_fullres")
    assert "5 labelled scans, 2 unlabelled" in capsys.readouterr().out
    run(project, "status", "-c", "3d_fullres")

    run(project, "unmerge", "--round", "0")
    assert raw_data.snapshot(raw.folder / "labelsTr") == before
    assert labelled(project) == ["scan_00", "scan_01", "scan_02"]
    assert {name: expert_file(project.pre, FOLDER, name).read_bytes() for name in scans} == expert_before
    run(project, "prepare", "-c", "3d_fullres")
    assert "3 labelled scans, 4 unlabelled" in capsys.readouterr().out


def test_cold_start_before_anything_is_labelled(nnunet_folders, capsys):
    import tiny

    raw_folder = raw_data.write_raw(nnunet_folders["nnUNet_raw"] / "Dataset107_Cold", 5, (), raw_data.LABELS)
    project = tiny.Project(nnunet_folders["nnUNet_raw"].parent, "Dataset107_Cold")
    run(project, "ask", "--scans", "3")
    answer_all(RawFolder(raw_folder), 0)
    run(project, "merge")
    run(project, "prepare", "-c", "3d_fullres")
    assert "3 labelled scans, 2 unlabelled" in capsys.readouterr().out
    names = [scan.identifier for scan in read_request(raw_folder, 0).scans]
    assert labelled_identifiers(project.pre, FOLDER, sorted(names)) == sorted(names)


def test_disagreement_between_two_models_and_their_information(trained, tmp_path):
    project = trained.project.copy(tmp_path)
    model = str(trained.output.parent)
    options = ["--scans", "1", "--plane-choice", "information", "--planes", "2"]
    run(project, "ask", *options, "--from", model, "--against", model, "--strategy", "disagreement")
    [scan] = read_request(project.raw, 0).scans
    assert scan.score == 0.0, "a model agrees with itself"
    assert len(scan.planes) == 2 and all(np.isfinite(plane.score) for plane in scan.planes)
