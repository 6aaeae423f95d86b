"""What all pictures share: class colours, outlines of maps of any size, names that look like formulas."""

from types import SimpleNamespace
from unittest import mock

import matplotlib.image
import numpy as np
import pytest

from nnunet_gmabs.generalist.prompts import Prompt
from nnunet_gmabs.generalist.votes import Example
from nnunet_gmabs.report import drawing
from nnunet_gmabs.report.contours import ScanPicture, draw_contours
from nnunet_gmabs.report.drawing import class_colour, new_figure, outline
from nnunet_gmabs.report.prompts import draw_prompts
from nnunet_gmabs.report.synthetic_samples import SyntheticPicture, draw_synthetic_samples
from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS

FORMULA = "a$^$"  # matplotlib takes it for mathematics, and fails


def example(title="scan", shape=(6, 7)):
    mask = np.arange(shape[0] * shape[1]).reshape(shape) % 7 > 3
    prompt = Prompt(np.array([1.0, 0, 5, 0]), np.array([[4.0, 0], [1, 0]]), np.array([1, 0]))
    return Example(title, np.zeros((*shape, 3), np.uint8), prompt, mask)


def synthetic(identifier="scan", shape=(5, 6, 7)):
    labels = np.zeros(shape, int)
    labels[shape[0] // 2, 1:4, 2:5] = 2
    image = np.random.default_rng(0).normal(size=shape)
    return SyntheticPicture(identifier, image, image, labels, 3, (1.0, 1.0, 1.0))


def contours(identifier="scan", shape=(5, 6, 7), classes=2):
    labels = np.arange(np.prod(shape)).reshape(shape) % (classes + 1)
    return ScanPicture(identifier, labels.astype(float), labels, {identifier: labels}, (1.0, 1.0, 1.0))


def test_every_class_has_its_own_colour_whichever_others_are_there():
    colours = [class_colour(value) for value in range(1, 121)]
    assert colours[:6] == list(drawing.COLOURS) and len(set(colours)) == 120
    assert all(len(colour) == 7 and colour.startswith("#") for colour in colours)


@pytest.mark.parametrize("shape", [(1, 7), (6, 1), (1, 1)])
def test_a_map_thinner_than_two_voxels_has_no_outline(shape):
    mask = np.ones(shape, bool)
    mask.flat[0] = False
    with new_figure(1, 1) as figure:
        panel = figure.subplots()
        outline(panel, mask, "white")
        assert not panel.collections


def test_an_outline_lies_around_its_region_and_nothing_has_none():
    mask = np.zeros((6, 7), bool)
    with new_figure(1, 1) as figure:
        panel = figure.subplots()
        outline(panel, mask, "white")
        outline(panel, ~mask, "white")
        assert not panel.collections
        mask[2:4, 3:6] = True
        outline(panel, mask, "#ff9f1c")
        [[path]] = [found.get_paths() for found in panel.collections]
    assert np.allclose([path.vertices.min(axis=0), path.vertices.max(axis=0)], [[2.5, 1.5], [5.5, 3.5]])


@pytest.mark.parametrize(
    ("draw", "picture"), [(draw_prompts, example), (draw_synthetic_samples, synthetic)], ids=["prompts", "synthetic"]
)
def test_names_are_no_formulas_and_thin_scans_are_drawn(tmp_path, draw, picture):
    shape = (1, 7) if picture is example else (1, 6, 7)
    for path, shown in ((tmp_path / "name.png", picture(FORMULA)), (tmp_path / "thin.png", picture(shape=shape))):
        draw(path, [shown])
        assert matplotlib.image.imread(path).ndim == 3


def test_contours_of_a_name_like_a_formula_of_a_thin_scan_and_of_thirty_classes(tmp_path):
    names = {value: f"organ {value}" for value in range(1, 31)}
    draw_contours(tmp_path / "name.png", [contours(FORMULA)], {1: FORMULA, 2: "b"})
    draw_contours(tmp_path / "thin.png", [contours(shape=(5, 1, 7))], {1: "a", 2: "b"})
    draw_contours(tmp_path / "many.png", [contours(classes=30)], names)
    height, width, _ = matplotlib.image.imread(tmp_path / "many.png").shape
    assert width == matplotlib.image.imread(tmp_path / "thin.png").shape[1], "the legend has rows"
    assert height > matplotlib.image.imread(tmp_path / "thin.png").shape[0]


def test_a_lone_class_of_a_synthetic_sample_has_the_colour_of_its_value(tmp_path):
    with mock.patch("nnunet_gmabs.report.synthetic_samples.outline") as drawn:
        draw_synthetic_samples(tmp_path / "s.png", [synthetic()])
    assert {call.args[2] for call in drawn.call_args_list} == {class_colour(2), "white"}


def test_figures_are_drawn_as_if_nnunet_had_set_no_style():
    with matplotlib.rc_context({"font.size": 40, "text.parse_math": True}):
        with new_figure(1, 1):
            assert matplotlib.rcParams["font.size"] == 9 and not matplotlib.rcParams["text.parse_math"]
        assert matplotlib.rcParams["font.size"] == 40


@pytest.mark.parametrize("error", [OSError("disk full"), TypeError("no picture"), ValueError("no formula")])
def test_a_training_does_not_end_for_want_of_a_picture(tmp_path, error):
    said = []
    trainer = SimpleNamespace(output_folder=tmp_path, round=3, print_to_log_file=said.append)
    with mock.patch("nnunet_gmabs.trainers.gmabs.draw_prompts", side_effect=error):
        nnUNetTrainerGMABS.draw(trainer, [example()])
    assert said == [f"WARNING: {tmp_path / 'prompts_round_003.png'} could not be drawn ({error!r})"]
