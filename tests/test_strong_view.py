"""The strong view: intensities only, out of place, from an explicit generator."""

from dataclasses import fields, replace

import pytest
import torch
from scipy import ndimage

from nnunet_gmabs.learning.strong_view import apply_strong_view, blur, coarsen, draw_strong_view

SHAPE = (4, 2, 9, 10, 11)


@pytest.fixture
def image():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def draw(image, strength=1.0, seed=1):
    return draw_strong_view(image, strength, torch.Generator().manual_seed(seed))


def neutral(image):
    return draw(image, 0.0)


def test_strength_0_leaves_the_image(image):
    view = neutral(image)
    assert view.zoom.tolist() == [1.0] * 4
    assert all(not getattr(view, f.name).any() for f in fields(view) if f.name not in ("zoom", "noise"))
    torch.testing.assert_close(apply_strong_view(image, view), image)


@pytest.mark.parametrize("shape", [SHAPE, (4, 1, 9, 10)])
def test_image_and_draws_are_not_written_into(shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    view = draw(image)
    before = image.clone(), [getattr(view, f.name).clone() for f in fields(view)]
    strong = apply_strong_view(image, view)
    assert strong.shape == image.shape and not torch.equal(strong, image)
    strong.fill_(7.0)
    assert torch.equal(image, before[0])
    assert all(torch.equal(getattr(view, f.name), old) for f, old in zip(fields(view), before[1], strict=True))


def test_draws_follow_from_the_generator_alone(image):
    state = torch.get_rng_state()
    one, again, other = (apply_strong_view(image, draw(image, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_kind_comes_to_half_of_the_samples_within_its_range():
    view = draw(torch.zeros(4000, 1, 1, 1))
    ranges = {
        "log_contrast": (-0.5, 0.5),
        "brightness": (-0.5, 0.5),
        "log_gamma": (-0.5, 0.5),
        "blur_voxels": (0.5, 1.5),
        "zoom": (1.0, 2.0),
        "noise_sd": (0.0, 0.3),
    }
    for name, (low, high) in ranges.items():
        values = getattr(view, name)
        drawn = values[values != (1.0 if name == "zoom" else 0.0)]
        assert len(drawn) / 4000 == pytest.approx(0.5, abs=0.03), name
        assert low <= drawn.min() and drawn.max() <= high, name
        assert drawn.mean().item() == pytest.approx((low + high) / 2, abs=0.02), name


def test_contrast_and_brightness_by_hand():
    image = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)  # mean 2, deviation 1
    view = replace(neutral(image), log_contrast=torch.tensor([2.0]).log(), brightness=torch.tensor([0.5]))
    assert apply_strong_view(image, view).flatten().tolist() == pytest.approx([0.5, 4.5])


def test_noise_is_in_units_of_the_samples_deviation():
    image = torch.tensor([-10.0, 10.0]).reshape(1, 1, 1, 2)
    noise = torch.tensor([1.0, -2.0]).reshape(1, 1, 1, 2)
    view = replace(neutral(image), noise_sd=torch.tensor([0.1]), noise=noise)
    assert apply_strong_view(image, view).flatten().tolist() == pytest.approx([-9.0, 8.0])


def test_blur_is_scipys(image):
    expected = ndimage.gaussian_filter(image[0, 1].double().numpy(), 1.2, mode="nearest", radius=4)
    torch.testing.assert_close(blur(image[0], 1.2)[1], torch.from_numpy(expected).float())
    assert torch.equal(blur(image[0], 0.0), image[0])


def test_a_coarse_view_keeps_shape_and_a_constant(image):
    assert torch.equal(coarsen(image[0], 1.0), image[0])
    coarse = coarsen(image[0], 2.0)
    assert coarse.shape == image[0].shape and coarse.std() < image[0].std()
    torch.testing.assert_close(coarsen(torch.full((1, 5, 6, 7), 3.0), 1.7), torch.full((1, 5, 6, 7), 3.0))


def test_a_constant_image_stays_finite():
    image = torch.zeros(3, 1, 5, 6, 7)
    assert apply_strong_view(image, draw(image)).isfinite().all()


def test_an_empty_batch_stays_empty():
    image = torch.zeros(0, 1, 5, 6, 7)
    assert apply_strong_view(image, draw(image)).shape == image.shape
