"""3D .tif: nnU-Net keeps the spacing in <scan>.json beside the file, and so do answers, merges and sparse copies."""

import json

import numpy as np
import pytest
import raw_data
import tifffile
from asked import PLANES, answer, ask, drawn, labels_of, truth

from nnunet_gmabs.annotation.merge import merge
from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import answer_paths, arrived_answers, is_answer, read_answer, round_folder
from nnunet_gmabs.annotation.sources import source_of, waiting_sources
from nnunet_gmabs.annotation.sparsify import SparsifyPlan, sparsify
from nnunet_gmabs.annotation.unmerge import unmerge

SPACING = [2.0, 1.0, 1.5]
SCAN = "scan_03"


def write(path, array):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, array)
    scan = path.name.removesuffix(".tif").removesuffix("_0000")
    path.with_name(f"{scan}.json").write_text(json.dumps({"spacing": SPACING}))


def make_tif(folder, labels, labelled):
    raw_data.write_dataset_json(folder, labels, scans=4, file_ending=".tif")
    for number in range(4):
        write(folder / "imagesTr" / f"{raw_data.name(number)}_0000.tif", raw_data.scan_image(number))
        if number in labelled:
            dense = raw_data.scan_labels(number)
            kept = keep_planes(dense, PLANES, raw_data.IGNORE) if "ignore" in labels else dense
            write(folder / "labelsTr" / f"{raw_data.name(number)}.tif", kept)
    return RawFolder(folder)


@pytest.fixture
def raw(tmp_path):
    raw = make_tif(tmp_path / "Dataset001_T", raw_data.SPARSE_LABELS, (0,))
    ask(raw, {SCAN: PLANES})
    return raw


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def spacing(path):
    return list(json.loads(path.read_text())["spacing"])


def test_labels_and_their_spacing_are_written_and_nothing_else_is_left(raw, tmp_path):
    _, properties = raw.read_image(SCAN)
    raw.write_labels(truth(SCAN), tmp_path / "labels.tif", properties)
    assert names(tmp_path) == ["Dataset001_T", "labels.json", "labels.tif"]
    labels, read = raw.read_labels(tmp_path / "labels.tif")
    assert np.array_equal(labels, truth(SCAN)) and list(read["spacing"]) == SPACING


def test_what_an_expert_painted_is_merged_with_its_spacing_and_taken_back(raw):
    answer(raw, 0, SCAN, PLANES)
    assert names(round_folder(raw.folder, 0) / "answers") == [f"{SCAN}.json", f"{SCAN}.tif"]
    assert [said.planes_done for said in arrived_answers(round_folder(raw.folder, 0))] == [tuple(PLANES)]
    merge(raw, lambda: waiting_sources(raw))
    assert np.array_equal(labels_of(raw, SCAN), drawn(SCAN, PLANES))
    assert names(raw.folder / "labelsTr") == ["scan_00.json", "scan_00.tif", f"{SCAN}.json", f"{SCAN}.tif"]
    assert spacing(raw.folder / "labelsTr" / f"{SCAN}.json") == SPACING
    assert waiting_sources(raw) == []
    assert [taken.removed for taken in unmerge(raw, 0)] == [True]
    assert not raw.label_path(SCAN).exists()


def test_an_answer_that_is_named_says_itself_what_is_done(raw):
    labels_file, _ = answer(raw, 0, SCAN, PLANES[:2])
    assert source_of(raw, labels_file).answer.planes_done == tuple(PLANES[:2])


def test_spacing_alone_is_no_answer(raw):
    folder = round_folder(raw.folder, 0)
    labels_file, description = answer_paths(folder, SCAN, ".tif")
    assert not is_answer(description)
    write(labels_file, drawn(SCAN, PLANES))  # as after a kill before the description was written
    (labels_file.parent / f".fa131e3a.{SCAN}.json").write_text(json.dumps({"spacing": SPACING}))  # as left earlier
    assert not is_answer(description) and arrived_answers(folder) == []
    answer(raw, 0, SCAN, PLANES)
    assert is_answer(description) and read_answer(description).annotator == "anna"
    assert spacing(description) == SPACING


def test_a_sparse_copy_has_the_spacing_of_images_and_labels(tmp_path):
    dense = make_tif(tmp_path / "Dataset001_T", raw_data.LABELS, range(4))
    copy = tmp_path / "Dataset002_S"
    result = sparsify(dense.folder, copy, SparsifyPlan(scans=2, test=1))
    training = sorted([*result.planes, *result.unlabelled])
    for folder, scans in (
        ("imagesTr", training),
        ("imagesTs", result.test),
        ("labelsTr_dense", training),
        ("labelsTs", result.test),
        ("labelsTr", sorted(result.planes)),
    ):
        assert sorted(path.stem for path in (copy / folder).glob("*.json")) == scans
        assert all(spacing(path) == SPACING for path in (copy / folder).glob("*.json"))
