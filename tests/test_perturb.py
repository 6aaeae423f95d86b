"""Perturbed copies: drawn from an explicit generator, applied out of place."""

import math

import pytest
import torch

from nnunet_gmabs.learning.perturb import apply_gamma, apply_noise, draw_log_gamma, draw_noise

SHAPE = (3, 2, 5, 6, 7)


@pytest.fixture
def image():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def test_nothing_is_written_into_the_image(image):
    before = image.clone()
    noise, log_gamma = draw_noise(image, 0.1, 0.2, generator()), draw_log_gamma(image, 0.3, generator())
    for perturbed in (apply_noise(image, noise), apply_gamma(image, log_gamma)):
        assert not torch.equal(perturbed, image)
        perturbed.fill_(7.0)  # would show a view of the image
    assert torch.equal(image, before)


def test_applying_does_not_write_into_what_was_drawn(image):
    noise, log_gamma = draw_noise(image, 0.1, 0.2, generator()), draw_log_gamma(image, 0.3, generator())
    copies = noise.clone(), log_gamma.clone()
    apply_noise(image, noise), apply_gamma(image, log_gamma)
    assert torch.equal(noise, copies[0]) and torch.equal(log_gamma, copies[1])


def test_the_same_generator_state_draws_the_same(image):
    for draw in (lambda g: draw_noise(image, 0.1, 0.2, g), lambda g: draw_log_gamma(image, 0.3, g)):
        assert torch.equal(draw(generator(1)), draw(generator(1)))
        assert not torch.equal(draw(generator(1)), draw(generator(2)))
        one = generator(1)
        assert not torch.equal(draw(one), draw(one))


def test_the_global_random_state_is_not_touched(image):
    before = torch.get_rng_state()
    draw_noise(image, 0.1, 0.2, generator()), draw_log_gamma(image, 0.3, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_has_its_deviation_and_reaches_but_never_passes_its_limit():
    noise = draw_noise(torch.zeros(2, 1, 40, 50, 60), 0.1, 0.2, generator())
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-7)
    assert noise.mean().abs().item() < 1e-3
    clipped = (noise.abs() >= 0.2 - 1e-7).float().mean().item()
    assert clipped == pytest.approx(math.erfc(2 / math.sqrt(2)), abs=2e-3)  # share outside of two deviations
    inside = (noise.abs() <= 0.1).float().mean().item()
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)), abs=4e-3)  # ... within one


def test_noise_is_added():
    image, noise = torch.tensor([1.0, -2.0]), torch.tensor([0.25, -0.5])
    assert apply_noise(image, noise).tolist() == [1.25, -2.5]


def test_log_gamma_is_one_number_a_sample_uniform_within_its_limit(image):
    assert draw_log_gamma(image, 0.3, generator()).shape == (3,)
    many = draw_log_gamma(torch.zeros(100_000, 1, 1), 0.3, generator())
    assert many.min() >= -0.3 and many.max() <= 0.3
    quarters = torch.histc(many, 4, -0.3, 0.3) / len(many)
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=6e-3, rtol=0)


def test_gamma_by_hand_keeps_signs_and_zero():
    image = torch.tensor([4.0, -4.0, 0.0, 1.0, -1.0, 0.25]).reshape(1, 1, 1, 2, 3)
    squared = apply_gamma(image, torch.tensor([math.log(2.0)])).flatten().tolist()
    assert squared == pytest.approx([16.0, -16.0, 0.0, 1.0, -1.0, 0.0625], rel=1e-6)
    root = apply_gamma(image, torch.tensor([math.log(0.5)])).flatten().tolist()
    assert root == pytest.approx([2.0, -2.0, 0.0, 1.0, -1.0, 0.5], rel=1e-6)


def test_every_sample_has_its_own_exponent(image):
    log_gamma = torch.tensor([0.0, math.log(2.0), math.log(3.0)])
    perturbed = apply_gamma(image, log_gamma)
    torch.testing.assert_close(perturbed[0], image[0])
    torch.testing.assert_close(perturbed[1], image[1] * image[1].abs())
    torch.testing.assert_close(perturbed[2], image[2] ** 3)


def test_two_dimensional_images_and_half_precision_work(image):
    flat = image[..., 0].half()
    assert apply_gamma(flat, draw_log_gamma(flat, 0.3, generator())).dtype == torch.float16
    assert draw_noise(flat, 0.1, 0.2, generator()).dtype == torch.float16
