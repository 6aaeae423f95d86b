"""The generalist that comes with the package."""

import dataclasses

import numpy as np
import pytest
import torch

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import sha256
from nnunet_gmabs.generalist.embedded import WEIGHTS, EmbeddedGeneralist
from nnunet_gmabs.generalist.embedded_network import (
    CROP_SIZE,
    EmbeddedNetwork,
    load_network,
    network_input,
    save_network,
)
from nnunet_gmabs.generalist.models import load_generalist
from nnunet_gmabs.generalist.prompts import Prompt


@pytest.fixture(scope="module")
def generalist():
    return load_generalist(GeneralistConfig("embedded"))


def disc(shape=(50, 70), centre=(24, 33), radius=11.0):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def picture_of(mask, seed=0):
    noise = np.random.default_rng(seed).normal(0, 8, mask.shape)
    return np.clip(70 + 90 * mask + noise, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def prompt_for(mask, prior=None):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1], rows[-1]], float)
    return Prompt(box, np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]]), np.array([1]), prior)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_weights_are_small_and_identified(generalist):
    assert WEIGHTS.stat().st_size < 2_000_000
    assert generalist.weights_hash == sha256(WEIGHTS)
    assert generalist.weights_hash in WEIGHTS.with_name("README.md").read_text(encoding="utf-8")
    assert not generalist.has_encoder and generalist.wants_neighbours
    assert sum(parameter.numel() for parameter in generalist.network.parameters()) < 450_000


def test_the_embedding_is_the_slice(generalist):
    picture = picture_of(disc())
    assert generalist.encode(picture) is picture
    assert generalist.encode_many([picture, picture])[1] is picture


@pytest.mark.parametrize("inverted", [False, True])
def test_a_plain_disc_is_found_from_its_box(generalist, inverted):
    mask = disc()
    picture = picture_of(mask)
    masks, qualities = generalist.segment(255 - picture if inverted else picture, [prompt_for(mask)])
    assert dice(masks[0], mask) > 0.9
    assert qualities[0] > 0.6


def test_a_prior_that_missed_a_third_of_a_disc_is_repaired(generalist):
    mask = disc()
    prior = mask.copy()
    prior[:, 38:] = False
    soft = np.where(prior, 0.85, 0.1).astype(np.float32)
    masks, _ = generalist.segment(picture_of(mask), [prompt_for(prior, soft)])
    assert dice(masks[0], mask) > dice(prior, mask) + 0.02


def test_where_nothing_is_seen_the_prior_stays(generalist):
    mask = disc()
    flat = np.full((*mask.shape, 3), 100, np.uint8)
    masks, _ = generalist.segment(flat, [prompt_for(mask, np.where(mask, 0.9, 0.05).astype(np.float32))])
    assert dice(masks[0], mask) > 0.8


def test_many_slices_at_once_give_what_each_gives_alone(generalist):
    first, second = disc(), disc((40, 31), (15, 17), 8)
    items = [
        (picture_of(first), [prompt_for(first), prompt_for(first, first.astype(np.float32))]),
        (picture_of(second), []),
        (picture_of(second), [prompt_for(second)]),
    ]
    for (masks, qualities), (picture, prompts) in zip(generalist.segment_many(items), items, strict=True):
        own_masks, own_qualities = generalist.segment(picture, prompts)
        assert masks.shape == (len(prompts), *picture.shape[:2]) and masks.dtype == bool
        assert (masks != own_masks).mean() < 1e-3 if len(prompts) else True
        np.testing.assert_allclose(qualities, own_qualities, atol=1e-4)


def test_the_network_sees_the_slices_the_right_way_round(generalist):
    """Of two discs side by side, in a picture longer than high, the one in the box is taken."""
    left, right = disc((40, 70), (20, 18), 9), disc((40, 70), (20, 50), 9)
    masks, _ = generalist.segment(picture_of(left | right), [prompt_for(left), prompt_for(right)])
    assert dice(masks[0], left) > 0.85 and dice(masks[1], right) > 0.85


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [69, 49, 69, 49], [0, 0, 69, 49], [-3, -2, 75, 60]])
def test_boxes_at_the_edge_and_constant_pictures_give_finite_answers(generalist, box):
    prompt = Prompt(np.array(box, float), np.zeros((0, 2)), np.zeros(0, int))
    masks, qualities = generalist.segment(np.zeros((50, 70, 3), np.uint8), [prompt])
    assert masks.shape == (1, 50, 70) and np.isfinite(qualities).all()


def test_what_is_known_of_the_specialist_is_used(generalist):
    told = EmbeddedGeneralist(specialist_dice=0.95)
    mask = disc()
    prompt = prompt_for(mask, np.where(disc(radius=8.0), 0.8, 0.2).astype(np.float32))
    assert told.segment(picture_of(mask), [prompt])[1] != generalist.segment(picture_of(mask), [prompt])[1]


def test_an_untrained_network_returns_the_prior():
    prior = torch.rand(2, CROP_SIZE, CROP_SIZE)
    boxes = torch.tensor([[5.0, 5, 40, 40]]).expand(2, 4)
    points, labels = torch.zeros(2, 0, 2), torch.zeros(2, 0)
    x = network_input(torch.rand(2, 3, CROP_SIZE, CROP_SIZE), prior, torch.ones(2), boxes, points, labels)
    with torch.no_grad():
        logits, _ = EmbeddedNetwork()(x)
    assert ((logits > 0) == (prior > 0.5)).all()


def test_the_networks_input_worked_by_hand():
    size = 16
    slices = torch.full((1, 3, size, size), 10.0)
    slices[:, :, 8:] = 50  # mean 30, standard deviation 20
    points = torch.tensor([[[3.0, 5.0], [9.0, 2.0], [1.0, 1.0]]])
    x = network_input(
        slices,
        torch.full((1, size, size), 0.7),
        torch.tensor([0.0]),
        torch.tensor([[2.0, 4.0, 6.0, 9.0]]),
        points,
        torch.tensor([[1, 0, -1]]),
    )[0]
    assert x.shape == (8, size, size)
    assert x[0, 0, 0] == x[1, 0, 0] == -1 and x[2, 15, 0] == 1
    box = torch.zeros(size, size)
    box[4:10, 2:7] = 1
    assert (x[3] == box).all()
    assert x[4, 5, 3] == 1 and x[5, 2, 9] == 1 and x[4, 2, 9] < 0.01 and x[4, 1, 1] < 0.05
    assert x[4, 5, 4] == pytest.approx(np.exp(-1 / 4.5))
    assert (x[6] == 0).all() and (x[7] == 0).all()  # no prior: not looked at


def test_weights_come_back_as_they_were_saved(tmp_path):
    network = EmbeddedNetwork()
    save_network(network, tmp_path / "w.safetensors")
    back = load_network(tmp_path / "w.safetensors")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value.half().float())
    assert not any(parameter.requires_grad for parameter in back.parameters())


def test_missing_damaged_and_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_generalist(GeneralistConfig("embedded", path))
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(InputError, match="w.safetensors: not a readable"):
        load_generalist(GeneralistConfig("embedded", path))
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not the weights of the embedded generalist"):
        load_generalist(GeneralistConfig("embedded", path))


def test_the_settings_name_the_generalist():
    assert load_generalist(GeneralistConfig()).name == "embedded"
    assert load_generalist(dataclasses.replace(GeneralistConfig(), name="walker")).name == "walker"
    with pytest.raises(ValueError, match="window_low"):
        GeneralistConfig(window_low=3.0, window_high=3.0)
