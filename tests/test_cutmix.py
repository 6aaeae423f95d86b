"""CutMix: boxes from another sample, the same for images, labels and masks."""

import math

import pytest
import torch

from nnunet_gmabs.learning.cutmix import apply_boxes, draw_boxes, draw_own_parts


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labels_are_mixed_as_images_by_hand():
    image = torch.arange(12.0).reshape(2, 1, 2, 3)
    labels = (100 * image).long()
    inside = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    inside[0, 0, 0, :2] = True
    inside[1, 0, 1, 2] = True
    expected = [[[[6, 7, 2], [3, 4, 5]]], [[[6, 7, 8], [9, 10, 5]]]]
    assert apply_boxes(image, inside).tolist() == expected
    assert apply_boxes(labels, inside).tolist() == (100 * torch.tensor(expected)).tolist()
    assert image.flatten().tolist() == list(range(12))


def test_every_channel_is_mixed():
    image = torch.rand(3, 2, 5, 6, 7, generator=generator())
    inside = draw_boxes(3, (5, 6, 7), 1.0, generator(1))
    mixed = apply_boxes(image, inside)
    assert torch.equal(mixed[1][:, inside[1, 0]], image[0][:, inside[1, 0]])
    assert torch.equal(mixed[1][:, ~inside[1, 0]], image[1][:, ~inside[1, 0]])


def test_a_sample_that_is_alone_stays_as_it_is():
    image = torch.rand(1, 2, 5, 6, 7, generator=generator())
    assert torch.equal(apply_boxes(image, draw_boxes(1, (5, 6, 7), 1.0, generator(1))), image)


@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 8)])
def test_boxes_are_boxes_of_at_most_half_the_sample(shape):
    boxes = draw_boxes(200, shape, 1.0, generator())
    assert boxes.shape == (200, 1, *shape)
    sizes = []
    for box in boxes[:, 0]:
        places = box.nonzero()
        if len(places):
            sides = (places.amax(0) - places.amin(0) + 1).tolist()
            assert len(places) == torch.tensor(sides).prod()
            for side, n in zip(sides, shape, strict=True):  # all the same share, up to rounding
                assert abs(side / n - sides[0] / shape[0]) <= 0.5 / n + 0.5 / shape[0]
        sizes.append(len(places) / box.numel())
    assert max(sizes) < 0.65  # rounding of sides
    assert 0.2 < sum(sizes) / 200 < 0.3  # mean of a uniform share of up to one half
    assert boxes[:, 0].any(0).all()  # anywhere


def test_the_probability_is_that_of_a_box():
    boxes = draw_boxes(2000, (12, 12), 0.3, generator())
    assert boxes.flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert not draw_boxes(50, (6, 7), 0.0, generator()).any()


def test_draws_follow_from_the_generator_alone():
    before = torch.get_rng_state()
    one, again, other = (draw_boxes(4, (5, 6, 7), 1.0, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_batch_stays_empty():
    empty = torch.zeros(0, 1, 5, 6, 7)
    assert apply_boxes(empty, draw_boxes(0, (5, 6, 7), 1.0, generator())).shape == empty.shape


@pytest.mark.parametrize("shape", [(6, 9, 12), (9, 8)])
def test_a_mixed_sample_keeps_a_box_of_itself_or_all_but_a_box(shape):
    own = draw_own_parts(900, shape, 2 / 3, generator())
    sides = [round(2 / 3 * n) for n in shape]
    volume, whole = math.prod(sides), math.prod(shape)
    assert own.dtype == torch.bool and own.shape == (900, 1, *shape)
    assert {int(sample.sum()) for sample in own} == {volume, whole - volume}
    places = set()
    for sample in own[:, 0]:
        box = sample if sample.sum() == volume else ~sample
        corners = box.nonzero()
        low, high = corners.amin(0), corners.amax(0)
        assert (high - low + 1).tolist() == sides and len(corners) == volume
        places.add(tuple(low.tolist()))
    assert len(places) == math.prod(n - side + 1 for n, side in zip(shape, sides, strict=True)), "anywhere"
    assert torch.equal(own, draw_own_parts(900, shape, 2 / 3, generator()))
