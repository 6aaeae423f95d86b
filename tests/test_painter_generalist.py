"""From clicks on the screen to the generalist's square pixels and back."""

import numpy as np

from nnunet_gmabs.commands.annotate import Asker, boxes_around, load_propose
from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.generalist.models import load_generalist

NOTHING = np.zeros((0, 2)), np.zeros(0, int)


class Brightest:
    """Takes what is bright inside the box; surest of the box whose inside is half bright."""

    has_encoder = True
    wants_neighbours = False

    def __init__(self):
        self.encoded = []

    def encode(self, slice_2d):
        self.encoded.append(slice_2d)
        return slice_2d

    def segment(self, embedding, prompts):
        masks = np.zeros((len(prompts), *embedding.shape[:2]), bool)
        qualities = []
        for mask, prompt in zip(masks, prompts, strict=True):
            x0, y0, x1, y1 = np.round(prompt.box_xyxy).astype(int)
            inside = np.zeros_like(mask)
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
            mask[:] = inside & (embedding[..., 0] > 128)
            qualities.append(1 - abs(mask.sum() / inside.sum() - 0.5))
        return masks, np.array(qualities)


def bright_block():
    """Three planes of 6 x 30 pixels of 5 mm x 1 mm; the middle one has a block of 3 x 10."""
    planes = np.zeros((3, 6, 30), np.uint8)
    planes[1, 2:5, 8:18] = 255
    return planes, (5.0, 1.0)


def test_long_pixels_become_square_and_the_mask_comes_back_on_the_pictures_own():
    planes, pixel_mm = bright_block()
    generalist = Brightest()
    mask, quality = Asker(generalist)(planes, pixel_mm, np.array([6.0, 1.0, 20.0, 5.0]), *NOTHING)
    assert generalist.encoded[0].shape == (30, 30, 3) and generalist.encoded[0].dtype == np.uint8
    assert np.array_equal(mask, planes[1] > 0) and 0 < quality <= 1


def test_the_box_cuts_in_the_pictures_own_pixels():
    planes, pixel_mm = bright_block()
    mask, _ = Asker(Brightest())(planes, pixel_mm, np.array([10.0, 3.0, 13.0, 4.0]), *NOTHING)
    expected = np.zeros((6, 30), bool)
    expected[3:5, 10:14] = True
    assert np.array_equal(mask, expected)


def test_a_slice_is_encoded_once_as_long_as_it_is_the_same():
    planes, pixel_mm = bright_block()
    generalist = Brightest()
    ask = Asker(generalist)
    for _ in range(2):
        ask(planes, pixel_mm, np.array([6.0, 1.0, 20.0, 5.0]), *NOTHING)
    ask(255 - planes, pixel_mm, np.array([6.0, 1.0, 20.0, 5.0]), *NOTHING)
    assert len(generalist.encoded) == 2


def test_the_best_of_several_boxes_answers_a_click():
    planes, pixel_mm = bright_block()
    mask, quality = Asker(Brightest())(planes, pixel_mm, None, np.array([[12.0, 3.0]]), np.array([1]))
    assert mask[3, 12] and quality > 0.6 and not (mask & (planes[1] == 0)).any()


def test_neighbours_are_sent_to_generalists_that_want_them():
    planes = np.stack([np.full((5, 6), value, np.uint8) for value in (10, 20, 30)])
    for wanted, expected in ((True, [10, 20, 30]), (False, [20, 20, 20])):
        generalist = Brightest()
        generalist.wants_neighbours = wanted
        Asker(generalist)(planes, (1.0, 1.0), np.array([0.0, 0.0, 3.0, 3.0]), *NOTHING)
        assert generalist.encoded[0][2, 3].tolist() == expected


def test_boxes_around_clicks_hold_them_all_and_stay_in_the_picture():
    points = np.array([[0.0, 2.0], [9.0, 3.0]])
    boxes = boxes_around(points, (6, 30), (5.0, 1.0))
    assert len(boxes) == 4
    for x0, y0, x1, y1 in boxes:
        assert 0 == x0 and 9 <= x1 <= 29 and 0 <= y0 <= 2 and 3 <= y1 <= 5
    assert boxes[2].tolist() == [0, 1.5, 9.5, 3.5]  # 30 mm / 3 = 10 mm wide: 5 mm to each side of (4.5, 2.5)
    widths = [box[2] - box[0] for box in boxes]
    assert widths == sorted(widths)


def test_the_embedded_generalist_finds_a_bright_disc_from_a_box_and_from_a_click():
    row, column = np.mgrid[:64, :72]
    disc = (row - 30) ** 2 + (column - 40) ** 2 < 11**2
    noise = np.random.default_rng(0).normal(0, 6, (3, 64, 72))
    planes = np.clip(60 + 120 * disc + noise, 0, 255).astype(np.uint8)
    ask = Asker(load_generalist(GeneralistConfig("embedded")))
    for box, points, labels in (
        (np.array([28.0, 18.0, 52.0, 42.0]), *NOTHING),
        (None, np.array([[40.0, 30.0]]), np.array([1])),
    ):
        mask, _ = ask(planes, (1.0, 1.0), box, points, labels)
        assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.8


def test_painting_goes_on_without_a_generalist():
    assert load_propose("none")[0] is None
    propose, why_not = load_propose("no such model")
    assert propose is None and "no such model" in why_not


def test_the_default_generalist_is_ready_without_any_download():
    assert load_propose("embedded")[1] == ""
