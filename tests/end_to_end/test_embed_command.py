"""gmabs embed on a prepared data set: what it encodes is what gmabs relabel, and a training, look for."""

import json
import os
from unittest import mock

import blosc2
import pytest
import raw_data
from test_generalist_sam import checkpoint, sam, small_models_count_as_vit_b  # noqa: F401
from tiny import PLANS, Training

from nnunet_gmabs import cli
from nnunet_gmabs.generalist.sam import SamGeneralist
from nnunet_gmabs.trainers import relabelling

pytestmark = pytest.mark.slow


@pytest.fixture
def encoded(monkeypatch):
    """How many slices any Sam has been given."""
    slices = []
    encode = SamGeneralist.encode_many
    monkeypatch.setattr(SamGeneralist, "encode_many", lambda self, some: slices.extend(some) or encode(self, some))
    return slices


@pytest.fixture
def here(project, tmp_path, checkpoint, capsys):  # noqa: F811
    """A copy of the data set whose settings name the small Sam, and a function that calls the command."""
    copy = project.copy(tmp_path)
    (copy.pre / "gmabs.yaml").write_text(json.dumps({"generalist": {"name": "sam", "checkpoint": str(checkpoint)}}))

    def command(*options, expect=0):
        with mock.patch.dict(os.environ, copy.variables()):
            where = ["embed", "-d", copy.number, "-device", "cpu"]
            assert cli.main([*where, *options]) == expect
        printed = capsys.readouterr()
        return printed.err if expect else printed.out

    return copy, command


def shapes(project):
    folder = project.pre / "nnUNetPlans_3d_fullres"
    return [blosc2.open(str(folder / f"{raw_data.name(number)}.b2nd")).shape[1:] for number in range(7)]


def test_every_view_that_a_training_asks_for_is_there(here, encoded):
    project, embed = here
    embed("-c", "3d_fullres", "-p", PLANS, "-num_parts", "2", "-part_id", "1")
    printed = embed("-c", "3d_fullres", "-p", PLANS)
    whole = sum(map(sum, shapes(project)))
    third, fifth, last = (sum(shapes(project)[number]) for number in (1, 3, 5))
    there = third + fifth + last
    assert f"{whole - there} slices encoded, {there} were there already" in printed
    assert len(encoded) == whole
    training = Training(project, project.folder / "training", "nnUNetTrainerGMABS", fold="all")
    trainer = training.build()
    relabeller = relabelling.build(trainer)
    for name, shape in zip((raw_data.name(number) for number in range(7)), shapes(project), strict=True):
        images = relabeller.images(name)
        for axis in range(3):
            _, computed = relabeller.encode(images)(axis, list(range(shape[axis])))
            assert computed == 0
    assert len(encoded) == whole


def test_a_generalist_without_encoder_has_nothing_to_embed(here, encoded):
    project, embed = here
    for name in ("embedded", "walker"):
        (project.pre / "gmabs.yaml").write_text(json.dumps({"generalist": {"name": name}}))
        assert f"{name}: a generalist without encoder, nothing to embed" in embed("-c", "3d_fullres", "-p", PLANS)
    assert encoded == [] and not (project.pre / "gmabs_embeddings").exists()


def test_bad_input_is_named(here, checkpoint):  # noqa: F811
    project, embed = here
    assert "-c 3d_lowest: not in nnUNetPlansTiny; there are" in embed("-c", "3d_lowest", "-p", PLANS, expect=2)
    (project.pre / "gmabs.yaml").write_text(json.dumps({"generalist": None}))
    assert "the setting generalist is null in" in embed("-c", "3d_fullres", "-p", PLANS, expect=2)
    assert "nnUNetPlansBig.json is missing" in embed("-c", "3d_fullres", "-p", "nnUNetPlansBig", expect=2)
    settings = {"generalist": {"name": "sam", "checkpoint": str(checkpoint), "cache_gib": 0}}
    (project.pre / "gmabs.yaml").write_text(json.dumps(settings))
    assert "make generalist.cache_gib larger than 0" in embed("-c", "3d_fullres", "-p", PLANS, expect=2)
