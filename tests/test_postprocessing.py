"""nnU-Net's post-processing from the planes that an expert drew, and what nnU-Net makes of it."""

import json
import pickle

import numpy as np
import pytest
import raw_data
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing, load_postprocess_save

from nnunet_gmabs import postprocessing
from nnunet_gmabs.cli import main
from nnunet_gmabs.data.cases import MADE_LABELS
from nnunet_gmabs.files import sha256, write_json

IGNORE = 3
SHAPE = (6, 7, 8)


def drawn_planes():
    """Two scans with three planes each: class 1 in one piece on all of them, class 2 in two on all of them."""
    labels = np.zeros(SHAPE, int)
    labels[1:4, 1:4, 1:4] = 1
    labels[4:, :2, :] = labels[4:, 5:, :] = 2
    for planes in (((0, 2), (1, 2), (0, 5)), ((0, 3), (2, 2), (0, 4))):
        drawn = np.full(SHAPE, IGNORE)
        for axis, index in planes:
            place = tuple(index if a == axis else slice(None) for a in range(3))
            drawn[place] = labels[place]
        yield drawn


def with_specks():
    predicted = np.zeros(SHAPE, np.uint8)
    predicted[1:4, 1:4, 1:4] = 1
    predicted[5, 6, 7] = 1
    predicted[4:, :2, :4] = predicted[5, 6, 0] = 2
    return predicted


def test_nnunet_keeps_the_largest_part_of_what_is_drawn_in_one_piece(tmp_path):
    planes = [*drawn_planes()] * 3
    assert postprocessing.write(tmp_path / "p.pkl", planes, IGNORE) == [1]
    result = apply_postprocessing(with_specks(), *pickle.loads((tmp_path / "p.pkl").read_bytes()))
    expected = with_specks()
    expected[5, 6, 7] = 0
    np.testing.assert_array_equal(result, expected)


def test_too_few_planes_tell_nothing(tmp_path):
    assert postprocessing.write(tmp_path / "p.pkl", [np.full(SHAPE, IGNORE)], IGNORE) == []
    result = apply_postprocessing(with_specks(), *pickle.loads((tmp_path / "p.pkl").read_bytes()))
    np.testing.assert_array_equal(result, with_specks())


@pytest.fixture
def raw(nnunet_folders):
    folder = nnunet_folders["nnUNet_raw"] / "Dataset104_Parts"
    return raw_data.write_raw(folder, 4, (0, 1, 2), raw_data.SPARSE_LABELS)


def test_the_command_says_what_is_kept_and_nnunet_does_it(raw, tmp_path, capsys):
    for number in range(3):
        labels = np.zeros(raw_data.scan_shape(number), np.uint8)
        labels[2:6, 2:6, 2:6] = 1
        labels[6:, :2, :] = labels[6:, -2:, :] = 2
        raw_data.write_labels(raw, number, ((0, 4), (0, 7), (1, 4), (1, 0), (2, 3)), labels)
    raw_data.write_labels(raw, 3, ())
    made = sha256(raw / "labelsTr" / f"{raw_data.name(3)}.nii.gz")
    (raw / MADE_LABELS).parent.mkdir()
    write_json(raw / MADE_LABELS, {raw_data.name(3): made, raw_data.name(2): "another file, before it was drawn in"})
    file, predicted = tmp_path / "p.pkl", tmp_path / "predicted.nii.gz"
    assert main(["postprocessing", "-d", "104", "-o", str(file)]) == 0
    said = capsys.readouterr().out
    kept = [line.split(": ")[1] == "the largest part is kept" for line in said.splitlines()[:2]]
    assert kept == [True, False] and "made from 3 label files" in said
    raw_data.write_image(predicted, with_specks())
    load_postprocess_save(str(predicted), str(tmp_path / "out.nii.gz"), SimpleITKIO(), *pickle.loads(file.read_bytes()))
    before, after = (SimpleITKIO().read_seg(str(path))[0][0] for path in (predicted, tmp_path / "out.nii.gz"))
    assert before[before != after].tolist() == [1] and after[before != after].tolist() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "left": 1, "right": 2}}, "has no ignore label, so the labels are dense"),
        ({"labels": {"background": 0, "both": [1, 2], "right": [2], "ignore": 3}}, "has regions"),
    ],
)
def test_dense_labels_and_regions_are_refused(change, message, raw, tmp_path, capsys):
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | change))
    assert main(["postprocessing", "-d", "104", "-o", str(tmp_path / "p.pkl")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "p.pkl").exists()


def test_without_any_label_nothing_is_decided(raw, tmp_path, capsys):
    for path in (raw / "labelsTr").iterdir():
        path.unlink()
    assert main(["postprocessing", "-d", "104", "-o", str(tmp_path / "p.pkl")]) == 2
    assert "no label file" in capsys.readouterr().err and not (tmp_path / "p.pkl").exists()


def test_a_folder_that_is_not_there_is_named(raw, tmp_path, capsys):
    assert main(["postprocessing", "-d", "104", "-o", str(tmp_path / "no" / "p.pkl")]) == 2
    assert "no: no such folder" in capsys.readouterr().err
