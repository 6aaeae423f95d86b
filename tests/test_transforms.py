"""nnU-Net's augmentation on sparse labels: no plane lost, nothing labelled that was not."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_gmabs.data.transforms import SparseTargetTransform, decode_labels, downsample_labels, for_sparse_labels

IGNORE = 3  # classes 0, 1, 2
INITIAL, FINAL = (14, 17, 19), (8, 12, 10)  # what the loader crops, what the network sees
SCALES = [[1, 1, 1], [0.5, 0.5, 1], [0.25, 0.25, 0.5]]


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)


# ---- decoding


def test_decoding_by_hand():
    encoded = torch.tensor([0, 1, 2, 3, -1, -2, -3, -4, -5], dtype=torch.int16)
    decoded = decode_labels(encoded, padding=3)
    assert decoded.tolist() == [0, 1, 2, 3, 3, 0, 1, 2, 3] and decoded.dtype == torch.int16
    assert encoded.tolist() == [0, 1, 2, 3, -1, -2, -3, -4, -5]


def test_decoding_undoes_what_an_expert_file_stores():
    from nnunet_gmabs.data import expert

    encoded = np.array([0, 2, 3, -2, -4, -5], np.int16)
    assert decode_labels(torch.from_numpy(encoded), padding=IGNORE).tolist() == expert.decode(encoded).tolist()


# ---- deep supervision


def reference_downsample(labels, block, ignore):
    """The rule, voxel by voxel: the majority of the drawn ones, the smaller label on a tie."""
    result = np.full([n // b for n, b in zip(labels.shape, block, strict=True)], ignore)
    for target in np.ndindex(*result.shape):
        votes = labels[tuple(slice(t * b, (t + 1) * b) for t, b in zip(target, block, strict=True))].ravel().tolist()
        votes = [v for v in votes if v != ignore]
        if votes:
            result[target] = min(set(votes), key=lambda v: (-votes.count(v), v))
    return result


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("position", range(8))
def test_a_plane_at_any_position_lives_on_at_every_scale_with_its_class(axis, position):
    labels = torch.full((1, 8, 16, 24), IGNORE, dtype=torch.int16)
    labels.select(axis + 1, position)[:] = 2
    scales = (1, 2, 4, 8)
    for scale, coarse in zip(scales, downsample_labels(labels, [[1 / s] * 3 for s in scales], IGNORE), strict=True):
        expected = torch.full((1, 8 // scale, 16 // scale, 24 // scale), IGNORE, dtype=torch.int16)
        expected.select(axis + 1, position // scale)[:] = 2
        assert torch.equal(coarse, expected)


def test_nnunets_own_downsampling_loses_planes():
    scales = [[s] * 3 for s in (1, 0.5, 0.25, 0.125)]
    survived = np.zeros((2, 4), int)
    for position in range(8):
        labels = torch.full((1, 8, 16, 24), IGNORE, dtype=torch.int16)
        labels[:, position] = 1
        stock = DownsampleSegForDSTransform(scales)(segmentation=labels)["segmentation"]
        for i, targets in enumerate((stock, downsample_labels(labels, scales, IGNORE))):
            survived[i] += [bool((target == 1).any()) for target in targets]
    assert survived.tolist() == [[8, 4, 2, 1], [8, 8, 8, 8]]


def test_majority_and_tie_by_hand():
    labels = torch.tensor([[[2, 2, 1, 2, 3, 3], [1, 3, 3, 3, 3, 3]]])  # blocks of 2 x 2: {2,2,1}, {1,2}, nothing
    (coarse,) = downsample_labels(labels, [[0.5, 0.5]], ignore_label=3)
    assert coarse.tolist() == [[[2, 1, 3]]]


def test_background_votes_like_any_class_and_ignore_does_not_vote():
    labels = torch.tensor([[[0, 0, 1, 0, 3, 1], [1, 3, 3, 3, 3, 3]]])
    assert downsample_labels(labels, [[0.5, 0.5]], ignore_label=3)[0].tolist() == [[[0, 0, 1]]]


@pytest.mark.parametrize("scale", [(1, 0.5, 1 / 3), (1 / 3, 1, 0.25), (0.5, 0.5, 0.5), (1, 1, 1)])
@pytest.mark.parametrize("ignore", [IGNORE, None])
def test_downsampling_equals_a_slow_reference(scale, ignore):
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, 6, 8, 12)).astype(np.int16))
    if ignore is not None:
        labels[torch.rand(labels.shape) < 0.8] = ignore
    (coarse,) = downsample_labels(labels, [scale], ignore)
    block = [round(1 / s) for s in scale]
    np.testing.assert_array_equal(coarse[0].numpy(), reference_downsample(labels[0].numpy(), block, ignore))
    assert coarse.dtype == torch.int16


def test_downsampling_works_in_two_dimensions():
    labels = torch.full((1, 6, 8), IGNORE)
    labels[0, 5] = 1
    (coarse,) = downsample_labels(labels, [[0.5, 0.25]], IGNORE)
    assert coarse.tolist() == [[[3, 3], [3, 3], [1, 1]]]


def test_unlabelled_stays_unlabelled_at_every_scale():
    labels = torch.full((1, *FINAL), IGNORE, dtype=torch.int16)
    assert all((coarse == IGNORE).all() for coarse in downsample_labels(labels, SCALES, IGNORE))


def test_a_patch_that_is_not_divisible_is_refused():
    with pytest.raises(ValueError, match="not divisible into blocks of \\(1, 2, 2\\)"):
        downsample_labels(torch.zeros(1, 5, 6, 7), [[1, 0.5, 0.5]], IGNORE)


# ---- the whole pipeline


def training_pipeline(
    ignore=IGNORE, scales=None, regions=None, dummy_2d=False, masked=(True,), size=FINAL, rotation=0.3
):
    angles = (rotation, rotation)
    stock = nnUNetTrainer.get_training_transforms(
        size, angles, None, tuple(range(len(size))), dummy_2d, use_mask_for_norm=list(masked), ignore_label=ignore
    )
    return for_sparse_labels(stock, ignore, scales, regions, "unknown")


def spatial_step(pipeline):
    return next(step for step in pipeline.transforms if isinstance(step, SpatialTransform))


def always_move(pipeline, scale=None):
    """Every patch is rotated, and scaled if asked for."""
    step = spatial_step(pipeline)
    step.p_rotation, step.p_scaling = 1, 0 if scale is None else 1
    step.scaling = (scale, scale)
    return step


def crossed_planes(shape=INITIAL):
    """Three planes with random classes, all else unknown; a corner outside of nnU-Net's mask; some padding."""
    rng = np.random.default_rng(0)
    labels = np.full(shape, IGNORE, np.int16)
    classes = rng.integers(0, IGNORE, shape)
    for axis, index in enumerate(n // 2 for n in shape):
        plane = tuple(index if a == axis else slice(None) for a in range(len(shape)))
        labels[plane] = classes[plane]
    labels[:, :6] = -2 - labels[:, :6]
    labels[:3] = -1
    return torch.from_numpy(labels)[None]


def coordinates(shape):
    """Channel 0 is 1, the others are where a voxel is: interpolated linearly they say what was sampled."""
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    return torch.stack([torch.ones(shape), *places])


@pytest.mark.parametrize("scale", [None, 0.7, 1.4])
@pytest.mark.parametrize("rotation", [-0.5, 0.3, 1.0])
def test_a_moved_voxel_has_the_label_of_the_nearest_voxel_and_no_other(rotation, scale):
    pipeline = training_pipeline(rotation=rotation)
    step = always_move(pipeline, scale)
    target = pipeline.transforms[-1]
    labels, image = crossed_planes(), coordinates(INITIAL)
    moved = target(**step(image=image, segmentation=labels))
    inside, places = moved["image"][0], moved["image"][1:]
    places = places / inside.clamp(min=1e-6)
    clear = (inside > 1 - 1e-4) & ((places - places.round()).abs() < 0.499).all(0)
    nearest = places.round().long()[:, clear]
    expected = decode_labels(labels[0], IGNORE)[tuple(nearest)]
    result = moved["segmentation"][0]
    assert clear.float().mean() > 0.5 and (expected != IGNORE).sum() > 20
    assert torch.equal(result[clear], expected)
    # at the very edge: labelled only where the nearest voxel of the scan has that label
    edge = (inside > 0.1) & ~clear
    expected = decode_labels(labels[0], IGNORE)[tuple(places.round().long()[:, edge])]
    assert ((result[edge] == expected) | (result[edge] == IGNORE)).all()
    assert (result[inside == 0] == IGNORE).all()


def test_nnunets_own_pipeline_thins_out_planes_where_classes_meet():
    """Why labels are moved by the nearest neighbour: interpolated, unknown neighbours win."""
    kept = {}
    for mode in ("nearest", "bilinear"):
        pipeline = training_pipeline()
        step = always_move(pipeline)
        step.mode_seg = step.mode_seg if mode == "nearest" else mode
        moved = step(image=coordinates(INITIAL), segmentation=decode_labels(crossed_planes(), IGNORE))
        kept[mode] = int((moved["segmentation"] != IGNORE).sum())
    assert kept["bilinear"] < 0.9 * kept["nearest"]


@pytest.mark.parametrize(("padding", "label"), [("background", 0), ("unknown", IGNORE)])
def test_corners_of_turned_patches_are_background_as_in_nnunets_own_or_unknown(padding, label):
    """The patch is as large as what was cropped, so that a rotation brings its corners in."""
    stock = nnUNetTrainer.get_training_transforms(FINAL, (0.5, 0.5), None, (), False, ignore_label=IGNORE)
    labels = torch.full((1, *FINAL), IGNORE, dtype=torch.int16)
    image = torch.ones(1, *FINAL)
    ours = for_sparse_labels(deepcopy(stock), IGNORE, None, None, padding)
    for pipeline, corner in ((stock, 0), (ours, label)):
        always_move(pipeline)
        moved = pipeline(image=image.clone(), segmentation=labels.clone())["segmentation"]
        assert set(moved.unique().tolist()) == {corner, IGNORE}
        assert corner == IGNORE or 0.05 < (moved == corner).float().mean() < 0.95


def test_at_coarse_scales_a_drawn_voxel_comes_before_padding_and_padding_before_nothing():
    labels = torch.tensor(
        [[2, -1, -1, IGNORE], [-1, -1, IGNORE, IGNORE], [IGNORE] * 4, [IGNORE] * 4], dtype=torch.int16
    )
    fine, coarse = SparseTargetTransform(IGNORE, [[1, 1], [0.5, 0.5]], None)(segmentation=labels[None])["segmentation"]
    assert fine[0].tolist() == [[2, 0, 0, IGNORE], [0, 0, IGNORE, IGNORE], [IGNORE] * 4, [IGNORE] * 4]
    assert coarse[0].tolist() == [[2, 0], [IGNORE, IGNORE]]


def test_of_padding_one_voxel_in_so_many_along_each_axis_is_background_at_every_scale():
    labels = torch.full((1, 4, 8), IGNORE, dtype=torch.int16)
    labels[0, :, 4:] = -1
    labels[0, 3, 7] = 2  # drawn
    fine, coarse = SparseTargetTransform(IGNORE, [[1, 1], [0.5, 0.5]], None, padding_step=2)(segmentation=labels)[
        "segmentation"
    ]
    unknown, some = [IGNORE] * 8, [IGNORE] * 4 + [0, IGNORE, 0, IGNORE]
    assert fine[0].tolist() == [some, unknown, some, [*unknown[:7], 2]]
    assert coarse[0].tolist() == [[IGNORE, IGNORE, 0, IGNORE], [IGNORE, IGNORE, IGNORE, 2]]


def test_another_name_for_the_label_of_padding_is_refused():
    with pytest.raises(ValueError, match="padding is 'zero'; valid are 'background' and 'unknown'"):
        SparseTargetTransform(IGNORE, None, None, "zero")


def test_padding_is_background_where_the_data_set_has_no_ignore_label():
    pipeline = training_pipeline(ignore=None)
    target = pipeline(image=torch.zeros(1, *INITIAL), segmentation=torch.full((1, *INITIAL), -1, dtype=torch.int16))
    assert (target["segmentation"] == 0).all()


def test_labels_outside_of_nnunets_mask_are_kept_and_the_image_is_0_there():
    pipeline = training_pipeline()
    for step in pipeline.transforms:
        if isinstance(step, RandomTransform):
            step.apply_probability = 0
    spatial_step(pipeline).p_rotation = spatial_step(pipeline).p_scaling = 0
    labels = torch.zeros(1, *FINAL, dtype=torch.int16)
    labels[:, :, :4] = 1
    labels[:, 2:6] = -2 - labels[:, 2:6]  # outside of the mask, drawn
    labels[:, 7:] = -1  # padding
    result = pipeline(image=torch.ones(1, *FINAL), segmentation=labels.clone())
    image, target = result["image"][0], result["segmentation"][0]
    assert set(image.unique().tolist()) == {0.0, 1.0}
    padded = target == IGNORE
    assert padded.sum() == 12 * 10 and (image[padded] == 0).all()
    assert (target == 1).sum() == 7 * 4 * 10 and (target == 0).sum() == 7 * 8 * 10
    assert (image == 0).sum() == 5 * 12 * 10  # four slices outside of the mask, one of padding


@pytest.mark.parametrize("dummy_2d", [False, True])
@pytest.mark.parametrize("regions", [None, [(1, 2), (2,)]])
def test_an_unlabelled_patch_stays_unlabelled_whatever_is_drawn(regions, dummy_2d):
    pipeline = training_pipeline(scales=SCALES, regions=regions, dummy_2d=dummy_2d)
    labels = torch.full((1, *((FINAL[0], *INITIAL[1:]) if dummy_2d else INITIAL)), IGNORE, dtype=torch.int16)
    labels[:, :, :3], labels[:, :2] = -2 - IGNORE, -1
    for _ in range(100):
        image = torch.randn(1, *labels.shape[1:])
        for target in pipeline(image=image, segmentation=labels.clone())["segmentation"]:
            if regions is None:
                assert (target == IGNORE).all()
            else:
                assert target[-1].all() and not target[:-1].any()


def test_dummy_two_dimensional_augmentation_moves_labels_within_their_slice_only():
    shape = (FINAL[0], *INITIAL[1:])
    pipeline = training_pipeline(dummy_2d=True, rotation=1.0)
    always_move(pipeline)
    labels = torch.full((1, *shape), IGNORE, dtype=torch.int16)
    labels[0, 3] = 2
    for step in pipeline.transforms:
        if isinstance(step, RandomTransform):
            step.apply_probability = 0
        if hasattr(step, "allowed_axes"):
            step.allowed_axes = ()
    target = pipeline(image=torch.ones(1, *shape), segmentation=labels)["segmentation"][0]
    assert target.shape == FINAL
    assert (target[3] == 2).float().mean() > 0.8
    target[3] = IGNORE
    assert (target == IGNORE).all()


def test_regions_are_bool_with_the_unknown_last():
    labels = torch.tensor([[0, 1, 2], [3, -1, -4]], dtype=torch.int16)[None]
    target = SparseTargetTransform(IGNORE, None, [(1, 2), 2], "unknown")(segmentation=labels)["segmentation"]
    assert target.dtype == torch.bool
    assert target.int().tolist() == [[[0, 1, 1], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]], [[0, 0, 0], [1, 1, 0]]]


def test_regions_without_ignore_label_have_no_unknown_channel():
    labels = torch.tensor([[0, 1, 2], [2, -1, -4]], dtype=torch.int16)[None]
    target = SparseTargetTransform(None, None, [(1, 2), (2,)])(segmentation=labels)["segmentation"]
    assert target.int().tolist() == [[[0, 1, 1], [1, 0, 1]], [[0, 0, 1], [1, 0, 1]]]


def test_regions_at_coarse_scales_come_from_the_label_that_won():
    labels = torch.tensor([[1, 1, 3, 3], [2, 3, 3, 3]], dtype=torch.int16)[None]
    fine, coarse = SparseTargetTransform(3, [[1, 1], [0.5, 0.5]], [(1, 2), (2,)])(segmentation=labels)["segmentation"]
    assert fine.shape == (3, 2, 4)
    assert coarse.int().tolist() == [[[1, 0]], [[0, 0]], [[0, 1]]]


def test_deep_supervision_gives_one_target_a_scale():
    targets = training_pipeline(scales=SCALES)(image=torch.zeros(1, *INITIAL), segmentation=crossed_planes())
    assert [tuple(t.shape) for t in targets["segmentation"]] == [(1, 8, 12, 10), (1, 4, 6, 10), (1, 2, 3, 5)]
    assert all(t.dtype == torch.int16 for t in targets["segmentation"])


@pytest.mark.parametrize("axis", range(3))
def test_a_drawn_plane_lives_on_in_every_target_of_the_pipeline(axis):
    pipeline = for_sparse_labels(nnUNetTrainer.get_validation_transforms(None), IGNORE, SCALES, None)
    labels = torch.full((1, *FINAL), IGNORE, dtype=torch.int16)
    labels.select(axis + 1, 1)[:] = 2  # an odd position, where taking one voxel of a block loses it
    for target in pipeline(image=torch.zeros(1, *FINAL), segmentation=labels)["segmentation"]:
        assert (target == 2).any()


def test_the_validation_pipeline_decodes_and_does_nothing_else():
    pipeline = for_sparse_labels(nnUNetTrainer.get_validation_transforms(None), IGNORE, None, None, "unknown")
    labels, image = crossed_planes(), torch.randn(1, *INITIAL)
    result = pipeline(image=image.clone(), segmentation=labels.clone())
    assert torch.equal(result["image"], image)
    assert torch.equal(result["segmentation"], decode_labels(labels, IGNORE))


def test_the_two_dimensional_pipeline_works_too():
    pipeline = training_pipeline(size=(12, 8), scales=[[1, 1], [0.5, 0.25]], rotation=2.0)
    always_move(pipeline)
    fine, coarse = pipeline(image=torch.ones(1, 17, 14), segmentation=crossed_planes()[:, 7])["segmentation"]
    assert fine.shape == (1, 12, 8) and coarse.shape == (1, 6, 2)
    assert (fine != IGNORE).any()


def test_equal_seeds_give_equal_patches_blurred_ones_too():
    def draw():
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        pipeline = training_pipeline()
        for step in pipeline.transforms:
            if isinstance(step, RandomTransform):
                step.apply_probability = 1
        return pipeline(image=coordinates(INITIAL)[1:2], segmentation=crossed_planes())

    first, second = draw(), draw()
    assert torch.equal(first["image"], second["image"]) and torch.equal(first["segmentation"], second["segmentation"])


def test_nothing_chooses_its_algorithm_by_wall_time():
    def flags(pipeline):
        inner = (getattr(step, "transform", step) for step in pipeline.transforms)
        return [step.benchmark for step in inner if hasattr(step, "benchmark")]

    assert flags(nnUNetTrainer.get_training_transforms(FINAL, (0, 0), None, (), False)) == [True]
    assert flags(training_pipeline()) == [False]


def test_a_pipeline_of_another_nnunet_is_refused():
    with pytest.raises(ValueError, match="RemoveLabelTansform"):
        for_sparse_labels(ComposeTransforms([DownsampleSegForDSTransform(SCALES)]), IGNORE, None, None)


@pytest.mark.parametrize("scales", [None, [[1, 1, 1], [0.5, 0.5, 0.5]]])
def test_pseudo_labels_follow_in_the_first_target_only(scales):
    expert = torch.full((1, 4, 6, 8), IGNORE, dtype=torch.int16)
    expert[0, 1] = 2
    pseudo = torch.randint(0, 3, (1, 4, 6, 8), dtype=torch.int16)
    pseudo[0, 0, 0, 0] = -1  # the loader padded
    target = SparseTargetTransform(IGNORE, scales, None)(segmentation=torch.cat([expert, pseudo]))["segmentation"]
    full = target if scales is None else target[0]
    expected = torch.where(pseudo == -1, IGNORE, pseudo)
    assert torch.equal(full, torch.cat([expert, expected]).to(torch.int16))
    if scales is not None:
        assert target[1].shape == (1, 2, 3, 4)
        assert set(target[1].unique().tolist()) == {2, IGNORE}
