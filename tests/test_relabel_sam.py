"""A generalist with an encoder: only slices with a prompt are encoded, each once in the life of a data set."""

import numpy as np
import pytest
import torch
from relabel_tools import Case, Rounding, scene
from test_generalist_sam import checkpoint, sam, small_models_count_as_vit_b  # noqa: F401

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.generalist.from_plans import embedding_cache
from nnunet_gmabs.generalist.models import load_generalist

PROMPTED = 4 + 5 + 6  # slices of a scene with a class, over the axes


@pytest.fixture
def generalist(checkpoint):  # noqa: F811
    """The small Sam, and a list of how many slices its encoder has been given at a time."""
    one = load_generalist(GeneralistConfig(name="sam", checkpoint=str(checkpoint)))
    calls = []
    one.sam.image_encoder.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return one, calls


@pytest.fixture
def case(tmp_path):
    images = {}
    for number, name in enumerate("ab"):  # noise: two slices that look the same would be one
        images[name] = np.concatenate([np.random.default_rng(number).normal(size=(1, 5, 6, 7)), scene()], dtype="f4")
    return Case(tmp_path, images)


def rounds(case, generalist, numbers, gib=1.0, said=None, folder="rounds"):
    said = [] if said is None else said
    cache = embedding_cache(case.folder / "gmabs_embeddings", generalist, gib, said.append)
    relabeller = case.relabeller(None, folder).asking(generalist, cache=cache)
    return relabeller, [relabeller.run(Rounding(), number)[0] for number in numbers]


def test_only_slices_with_a_prompt_are_encoded_and_each_of_them_once(case, generalist):
    sam_, calls = generalist
    _, (first, second) = rounds(case, sam_, (1, 2))
    assert sum(calls) == 2 * PROMPTED
    assert (first["slices"], first["encoded"]) == (2 * PROMPTED, 2 * PROMPTED)
    assert (second["slices"], second["encoded"]) == (2 * PROMPTED, 0)
    _, (other_training,) = rounds(case, sam_, (1,), folder="another fold")
    assert sum(calls) == 2 * PROMPTED and other_training["encoded"] == 0


def test_embeddings_read_and_computed_give_the_same_labels(case, generalist):
    kept, _ = rounds(case, generalist[0], (1, 2))
    anew, (figures,) = rounds(case, generalist[0], (2,), gib=0.0, folder="anew")
    assert figures["encoded"] == 2 * PROMPTED
    for name in "ab":
        one, other = (pseudo_labels.round_folder(r.folder, 2) / f"{name}.b2nd" for r in (kept, anew))
        np.testing.assert_array_equal(
            pseudo_labels.read_pseudo_labels(one)[:], pseudo_labels.read_pseudo_labels(other)[:]
        )


def test_a_scan_too_large_for_the_cache_is_encoded_in_every_round_and_that_is_said_once(case, generalist):
    said = []
    room = 20 * 2500 / 2**30  # some 20 embeddings of 17 x 8 x 8 half floats with their headers
    _, (first, second) = rounds(case, generalist[0], (1, 2), room, said)
    assert first["encoded"] == 2 * PROMPTED
    assert 5 <= second["encoded"] <= 15
    assert len(said) == 1 and "full at 0.00 GB; what is not in it is encoded in every round" in said[0]


def test_where_nothing_can_be_kept_rounds_go_on_and_that_is_said(case, generalist):
    (case.folder / "gmabs_embeddings").write_text("a file where the folder should be")
    said = []
    _, (first,) = rounds(case, generalist[0], (1,), said=said)
    assert first["encoded"] == 2 * PROMPTED
    assert len(said) == 1 and "embeddings cannot be kept there" in said[0]


def test_other_weights_have_embeddings_of_their_own(case, generalist, sam, tmp_path):  # noqa: F811
    rounds(case, generalist[0], (1,))
    with torch.no_grad():
        sam.image_encoder.pos_embed += 0.1
        torch.save(sam.state_dict(), tmp_path / "other.pth")
        sam.image_encoder.pos_embed -= 0.1
    other = load_generalist(GeneralistConfig(name="sam", checkpoint=str(tmp_path / "other.pth")))
    _, (figures,) = rounds(case, other, (1,), folder="other")
    assert figures["encoded"] == 2 * PROMPTED


def test_a_generalist_without_encoder_keeps_nothing(tmp_path):
    assert embedding_cache(tmp_path / "none", load_generalist(GeneralistConfig()), 1.0, print) is None
    assert not (tmp_path / "none").exists()
