"""The reference without weights."""

import numpy as np

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.generalist.models import load_generalist
from nnunet_gmabs.generalist.prompts import Prompt


def scene():
    y, x = np.ogrid[:50, :70]
    mask = (y - 24) ** 2 + (x - 33) ** 2 <= 100
    noise = np.random.default_rng(0).normal(0, 5, mask.shape)
    picture = np.clip(60 + 100 * mask + noise, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    return mask, picture, np.array([23.0, 14.0, 43.0, 34.0])


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_plain_disc_is_found_from_its_box_and_from_its_prior():
    mask, picture, box = scene()
    walker = load_generalist(GeneralistConfig("walker"))
    prior = np.where(mask, 0.9, 0.1).astype(np.float32)
    prior[20:28, 30:37], prior[:5] = 0.99, 0.01
    none = np.zeros((0, 2)), np.zeros(0, int)
    masks, qualities = walker.segment(walker.encode(picture), [Prompt(box, *none), Prompt(box, *none, prior)])
    assert dice(masks[0], mask) > 0.9 and dice(masks[1], mask) > 0.9
    assert (qualities > 0.5).all() and (qualities <= 1).all()


def test_points_move_the_border():
    mask, picture, box = scene()
    flat = np.full_like(picture, 100)
    walker = load_generalist(GeneralistConfig("walker"))
    points = Prompt(box, np.array([[26.0, 24.0], [40.0, 24.0]]), np.array([1, 0]))
    found = walker.segment(flat, [points])[0][0]
    assert found[24, 26] and not found[24, 40]


def test_no_prompt_a_constant_slice_and_a_box_of_one_pixel():
    walker = load_generalist(GeneralistConfig("walker"))
    flat = np.zeros((5, 7, 3), np.uint8)
    assert walker.segment(flat, [])[0].shape == (0, 5, 7)
    one = Prompt(np.array([3.0, 2.0, 3.0, 2.0]), np.zeros((0, 2)), np.zeros(0, int))
    (masks, qualities), _ = walker.segment_many([(flat, [one]), (flat, [])])
    assert masks.shape == (1, 5, 7) and np.isfinite(qualities).all()
