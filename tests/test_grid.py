"""From a scan's own grid to the training grid: nothing drawn is lost, nothing else becomes drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_gmabs.annotation.planes import drawn_planes, keep_planes
from nnunet_gmabs.data.grid import (
    TrainingGrid,
    labels_to_original_grid,
    labels_to_training_grid,
    nearest_source,
    nearest_target,
    resize_labels,
)
from nnunet_gmabs.errors import InputError

IGNORE = 3


def plans(transpose, spacing):
    """As much of nnU-Net's managers as the grid reads; spacing is in training order, as in real plans."""
    return SimpleNamespace(transpose_forward=transpose), SimpleNamespace(spacing=spacing)


def reference_resize(labels, new_shape, ignore):
    """The rule, voxel by voxel: who reaches whom, then the vote."""
    pairs_per_axis = []
    for old, new in zip(labels.shape, new_shape, strict=True):
        if new >= old:
            pairs_per_axis.append({(int((i + 0.5) * old / new), i) for i in range(new)})
        else:
            pairs_per_axis.append({(j, int((j + 0.5) * new / old)) for j in range(old)})
    result = np.full(new_shape, ignore)
    for target in np.ndindex(*new_shape):
        sources = [[j for j, i in pairs if i == t] for pairs, t in zip(pairs_per_axis, target, strict=True)]
        votes = [labels[a, b, c] for a in sources[0] for b in sources[1] for c in sources[2]]
        votes = [int(v) for v in votes if v != ignore]
        if votes:
            result[target] = min(set(votes), key=lambda v: (-votes.count(v), v))
    return result


def random_case(seed):
    """A random scan with three labelled planes, random spacing, transposition and crop box."""
    rng = np.random.default_rng(seed)
    shape = rng.permutation([5, 6, 7]) + rng.integers(0, 6)
    labels = keep_planes(rng.integers(0, IGNORE, shape), [(a, rng.integers(0, shape[a])) for a in range(3)], IGNORE)
    transpose = [int(a) for a in rng.permutation(3)]
    shape_t = [int(shape[a]) for a in transpose]
    box = [[int(rng.integers(0, 2)), int(n - rng.integers(0, 2))] for n in shape_t]
    spacing = [float(s) for s in rng.uniform(0.7, 1.4, 3)]
    properties = {"spacing": spacing, "bbox_used_for_cropping": box, "shape_before_cropping": tuple(shape_t)}
    target = [float(s) for s in rng.uniform(0.5, 2.2, 3)]
    return labels, properties, plans(transpose, target)


@pytest.mark.parametrize("seed", range(30))
def test_result_equals_a_slow_reference_written_from_the_rule(seed):
    labels, properties, (plans_manager, configuration) = random_case(seed)
    result = labels_to_training_grid(labels, properties, plans_manager, configuration, IGNORE)
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration)
    cropped = labels.transpose(grid.transpose)[tuple(slice(*side) for side in grid.box)]
    np.testing.assert_array_equal(result, reference_resize(cropped, grid.shape, IGNORE))


@pytest.mark.parametrize("seed", range(30))
def test_every_labelled_voxel_labels_its_nearest_training_voxel(seed):
    labels, properties, (plans_manager, configuration) = random_case(seed)
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration)
    result = labels_to_training_grid(labels, properties, plans_manager, configuration, IGNORE)
    cropped = labels.transpose(grid.transpose)[tuple(slice(*side) for side in grid.box)]
    for source in np.argwhere(cropped != IGNORE):
        centre = (source + 0.5) * np.array(grid.shape) / np.array(cropped.shape)  # in training voxels
        assert result[tuple(np.floor(centre).astype(int))] != IGNORE


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_labelled_further_from_a_labelled_voxel_than_one_voxel_of_the_coarser_grid(seed):
    labels, properties, (plans_manager, configuration) = random_case(seed)
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration)
    result = labels_to_training_grid(labels, properties, plans_manager, configuration, IGNORE)
    cropped = labels.transpose(grid.transpose)[tuple(slice(*side) for side in grid.box)]
    scale = np.array(grid.shape) / np.array(cropped.shape)
    sources = (np.argwhere(cropped != IGNORE) + 0.5) * scale
    for target in np.argwhere(result != IGNORE):
        distance = np.abs(sources - (target + 0.5))
        assert (distance <= np.maximum(scale, 1) / 2 + 1e-9).all(axis=1).any()


@pytest.mark.parametrize(("factor", "places"), [(0.5, (12, 30, 20)), (0.9, (14, 24, 34))])
def test_planes_that_stock_nnunet_loses_survive(factor, places):
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    shape = (30, 40, 50)
    labels = keep_planes(np.zeros(shape, np.int16), enumerate(places), IGNORE)
    new_shape = tuple(round(n * factor) for n in shape)
    ours = resize_labels(labels, new_shape, IGNORE)
    stock = resample_data_or_seg_to_shape(labels[None], new_shape, [1.0] * 3, [1 / factor] * 3, True, 1, 0, None)[0]
    assert drawn_planes(ours, IGNORE) == [(axis, int((index + 0.5) * factor)) for axis, index in enumerate(places)]
    assert drawn_planes(stock, IGNORE) == []


def test_majority_wins_and_ignore_does_not_vote():
    labels = np.array([1, 2, 2, IGNORE, IGNORE, 1]).reshape(6, 1, 1)
    assert resize_labels(labels, (2, 1, 1), IGNORE).ravel().tolist() == [2, 1]


def test_a_tie_goes_to_the_smaller_label_background_included():
    labels = np.array([2, 1, 1, 0]).reshape(4, 1, 1)
    assert resize_labels(labels, (2, 1, 1), IGNORE).ravel().tolist() == [1, 0]


def test_upsampling_reads_the_nearest_source_voxel():
    labels = np.array([IGNORE, 1, IGNORE]).reshape(1, 3, 1)
    assert resize_labels(labels, (1, 6, 1), IGNORE).ravel().tolist() == [3, 3, 1, 1, 3, 3]


def test_unlabelled_stays_unlabelled_and_an_unchanged_grid_changes_nothing():
    assert (resize_labels(np.full((5, 6, 7), IGNORE), (3, 9, 7), IGNORE) == IGNORE).all()
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7))
    np.testing.assert_array_equal(resize_labels(labels, (5, 6, 7), IGNORE), labels)


def test_a_data_set_without_ignore_label_has_every_voxel_labelled():
    labels = np.arange(8).reshape(2, 2, 2)
    assert resize_labels(labels, (1, 1, 1), None).item() == 0
    assert resize_labels(labels, (1, 2, 3), None).shape == (1, 2, 3)


def test_axes_of_index_maps_cover_both_grids():
    for old in range(1, 20):
        for new in range(1, 20):
            if new >= old:
                assert set(nearest_source(old, new)) == set(range(old))
            if new <= old:
                assert set(nearest_target(old, new)) == set(range(new))


@pytest.mark.parametrize("seed", range(30))
def test_a_plane_is_found_where_its_labels_land(seed):
    labels, properties, (plans_manager, configuration) = random_case(seed)
    grid = TrainingGrid.from_properties(properties, plans_manager, configuration)
    for axis in range(3):
        for index in range(labels.shape[axis]):
            one = keep_planes(np.zeros_like(labels), [(axis, index)], IGNORE)
            result = labels_to_training_grid(one, properties, plans_manager, configuration, IGNORE)
            axis_prep, indices = grid.indices_prep(axis, index)
            drawn = np.moveaxis(result != IGNORE, axis_prep, 0).reshape(result.shape[axis_prep], -1)
            assert np.flatnonzero(drawn.any(axis=1)).tolist() == indices
            assert drawn[indices].all()


def test_two_dimensional_plans_keep_the_distance_of_slices():
    properties = {
        "spacing": [3.0, 1.0, 1.0],
        "bbox_used_for_cropping": [[0, 5], [0, 6], [0, 8]],
        "shape_before_cropping": (5, 6, 8),
    }
    grid = TrainingGrid.from_properties(properties, *plans([0, 1, 2], [2.0, 0.5]))
    assert grid.shape == (5, 3, 16)
    assert grid.spacing == (3.0, 2.0, 0.5)


def test_plans_that_leave_scans_as_they_are_keep_their_grid():
    labels, properties, (plans_manager, configuration) = random_case(0)
    configuration.configuration = {"resampling_fn_seg": "no_resampling_hack"}
    found = labels_to_training_grid(labels, properties, plans_manager, configuration, IGNORE)
    box = tuple(slice(*side) for side in properties["bbox_used_for_cropping"])
    assert np.array_equal(found, labels.transpose(plans_manager.transpose_forward)[box])


def test_channel_axis_is_kept_and_another_shape_is_refused():
    labels, properties, managers = random_case(0)
    with_channel = labels_to_training_grid(labels[None], properties, *managers, IGNORE)
    without = labels_to_training_grid(labels, properties, *managers, IGNORE)
    np.testing.assert_array_equal(with_channel[0], without)
    with pytest.raises(InputError, match="exported again"):
        labels_to_training_grid(labels[1:], properties, *managers, IGNORE)


@pytest.mark.parametrize("seed", range(6))
def test_shape_equals_that_of_nnunets_own_preprocessor(seed):
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    labels, properties, (plans_manager, configuration) = random_case(seed)
    image = np.ones((1, *labels.shape))
    image[:, 0], image[:, :, -1] = 0, 0  # so that nnU-Net crops
    plans_manager.foreground_intensity_properties_per_channel = {"0": {}}
    plans_manager.get_label_manager = lambda _: SimpleNamespace(
        has_regions=False, foreground_labels=[1, 2], has_ignore_label=False
    )

    def to_shape(data, new_shape, *_):
        return np.zeros((data.shape[0], *new_shape), data.dtype)

    configuration.normalization_schemes = ["NoNormalization"]
    configuration.use_mask_for_norm = [False]
    configuration.resampling_fn_data = configuration.resampling_fn_seg = to_shape
    properties = {"spacing": properties["spacing"]}
    _, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image, labels[None], properties, plans_manager, configuration, {}
    )
    ours = labels_to_training_grid(labels[None], properties, plans_manager, configuration, IGNORE)
    assert ours.shape == seg.shape


@pytest.mark.parametrize("seed", range(20))
def test_the_way_back_reads_the_nearest_voxel(seed):
    labels_orig, properties, managers = random_case(seed)
    grid = TrainingGrid.from_properties(properties, *managers)
    labels = np.random.default_rng(seed).integers(0, 3, grid.shape)
    back = labels_to_original_grid(labels, properties, *managers, outside=9)
    assert back.shape == labels_orig.shape
    for place in np.ndindex(*back.shape):
        moved = [place[axis] for axis in grid.transpose]
        if all(first <= i < end for i, (first, end) in zip(moved, grid.box, strict=True)):
            source = tuple(
                int((i - first + 0.5) * new / (end - first))
                for i, (first, end), new in zip(moved, grid.box, grid.shape, strict=True)
            )
            assert back[place] == labels[source]
        else:
            assert back[place] == 9


def test_there_and_back_without_resampling_is_the_same_inside_the_box():
    labels = np.arange(5 * 6 * 7).reshape(5, 6, 7) % 3
    properties = {"spacing": [1.0, 2.0, 3.0], "bbox_used_for_cropping": [[0, 7], [1, 5], [0, 6]]}
    properties["shape_before_cropping"] = (7, 5, 6)
    managers = plans([2, 0, 1], [3.0, 1.0, 2.0])
    there = labels_to_training_grid(labels, properties, *managers, None)
    back = labels_to_original_grid(there, properties, *managers, outside=-1)
    np.testing.assert_array_equal(back[1:], labels[1:])
    assert (back[0] == -1).all()


def test_a_map_of_another_grid_is_refused():
    properties = {"spacing": [1.0] * 3, "bbox_used_for_cropping": [[0, 5], [0, 6], [0, 7]]}
    properties["shape_before_cropping"] = (5, 6, 7)
    with pytest.raises(InputError, match=r"shape \(5, 6, 8\), but the scan's training grid has \(5, 6, 7\)"):
        labels_to_original_grid(np.zeros((5, 6, 8), int), properties, *plans([0, 1, 2], [1.0] * 3))
