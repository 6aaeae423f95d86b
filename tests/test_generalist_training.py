"""Images and priors drawn in code, of which the embedded generalist learns."""

import copy

import numpy as np
import pytest
import torch

from nnunet_gmabs.generalist.training.priors import degraded_prior, dice, signed_distance
from nnunet_gmabs.generalist.training.samples import SAMPLES_A_SCENE, SamplePool, endless_samples, scene_samples
from nnunet_gmabs.generalist.training.scenes import random_scene
from nnunet_gmabs.generalist.training.shapes import ball, ellipsoid, random_rotation, smooth_field


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    pool = SamplePool(100)
    samples = endless_samples(rng)
    while pool.filled < 100:
        pool.add(next(samples), rng)
    return pool


def test_a_seed_draws_the_same_scene_again():
    first, second = (random_scene(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.image.shape != random_scene(np.random.default_rng(8)).image.shape


def test_scenes_have_structures_and_use_the_range_of_grey():
    for seed in range(5):
        scene = random_scene(np.random.default_rng(seed))
        assert scene.image.shape == scene.labels.shape and scene.image.dtype == np.uint8
        assert len(np.unique(scene.labels)) > 1
        assert scene.image.min() == 0 and scene.image.max() == 255
        assert scene.spacing.min() == 1


def test_a_smooth_field_is_smooth_and_centred():
    field = smooth_field((30, 20, 25), 3, np.random.default_rng(0))
    assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-3)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 1


def test_a_ball_and_a_round_ellipsoid_are_the_same():
    position = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), np.arange(7.0), indexing="ij")).astype(np.float32)
    centre = np.array([2.0, 3.0, 3.0], np.float32)
    rotation = random_rotation(np.random.default_rng(0))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    round_one = ellipsoid(position, centre, np.full(3, 2.0), rotation)
    np.testing.assert_allclose(round_one, ball(position, centre, 2.0), atol=1e-4)
    assert ball(position, centre, 2.0)[2, 3, 5] == 0


def test_signed_distance_of_a_slab():
    mask = np.zeros((7, 5, 6), bool)
    mask[2:5] = True
    np.testing.assert_allclose(signed_distance(mask, np.ones(3))[:, 0, 0], [-1.5, -0.5, 0.5, 1.5, 0.5, -0.5, -1.5])
    np.testing.assert_allclose(
        signed_distance(mask, np.array([2.0, 1, 1]))[:, 0, 0], [-3.5, -1.5, 1.5, 3.5, 1.5, -1.5, -3.5]
    )


def test_priors_get_worse_with_severity():
    rng = np.random.default_rng(0)
    y = np.stack(np.meshgrid(*[np.arange(-15, 16.0)] * 3, indexing="ij")).astype(np.float32)
    distance = ball(y, np.zeros(3, np.float32), 9.0)
    image = rng.integers(0, 256, distance.shape, np.uint8)
    mean = [
        np.mean([dice(degraded_prior(distance, image, np.ones(3), s, rng) > 0.5, distance > 0) for _ in range(12)])
        for s in (0.0, 0.4, 0.8)
    ]
    assert mean[0] > 0.97 > mean[1] > mean[2] > 0.3
    assert mean[0] - mean[2] > 0.2


def test_samples_of_a_scene_fit_together():
    rng = np.random.default_rng(1)
    samples = scene_samples(random_scene(rng), rng)
    assert 0 < len(samples) <= SAMPLES_A_SCENE
    for sample in samples:
        assert sample.slices.shape == (3, 48, 48) and sample.prior.shape == sample.truth.shape == (48, 48)
        assert (sample.box_xyxy[2:] >= sample.box_xyxy[:2] - 1).all()
        assert 0 <= sample.prior_dice <= 1


def test_priors_and_truths_belong_together(pool):
    scores = [dice(prior > 127, truth > 127) for prior, truth in zip(pool.prior, pool.truth, strict=True)]
    assert 0.5 < np.mean(scores) < 0.95
    assert 0.6 < (pool.prior > 127).sum() / (pool.truth > 127).sum() < 1.6


def test_augmentation_moves_truth_prior_and_box_alike(pool):
    same = copy.deepcopy(pool)
    same.prior[:] = same.truth
    rng = np.random.default_rng(0)
    batch = same.random_batch(64, 0.0, rng)
    torch.testing.assert_close(batch.prior, batch.truth)
    assert batch.x.shape == (64, 8, 48, 48) and torch.isfinite(batch.x).all()
    same.slices[:] = np.where(same.truth > 127, 200, 50)[:, None]  # what is seen moves along, too
    batch = same.random_batch(64, 0.0, rng)
    bright = (batch.x[:, 1] > 0) == (batch.truth > 0.5)
    assert ((bright.float().mean((1, 2)) - 0.5).abs() > 0.45).float().mean() > 0.9  # inverted or not


def test_the_flag_says_what_is_known_of_the_prior(pool):
    batch = pool.batch(np.arange(3), np.array([0.0, 1.0, 1.8]))
    torch.testing.assert_close(batch.x[:, 7, 0, 0], torch.tensor([0.0, 1.0, 1.8]))
    assert (batch.prior[0] == 0).all() and batch.prior[1:].max() > 0.5


def test_a_full_pool_replaces_samples():
    rng = np.random.default_rng(0)
    pool = SamplePool(10)
    samples = next(endless_samples(rng))
    pool.add(samples, rng)
    assert pool.filled == 10
    before = pool.slices.copy()
    pool.add(next(endless_samples(rng)), rng)
    assert pool.filled == 10 and (pool.slices != before).any()
