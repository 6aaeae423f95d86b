"""Two streams of patches from real files: what each sample is centred on, how many of each kind, from which numbers."""

import random
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.data import expert
from nnunet_gmabs.data.dataset import SparseDataset
from nnunet_gmabs.data.loader import TwoStreamLoader
from nnunet_gmabs.data.transforms import PADDING, decode_labels, for_sparse_labels

IGNORE = 3
LABELS = LabelManager({"background": 0, "left": 1, "right": 2, "ignore": IGNORE}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "right": [2], "ignore": IGNORE}, [1, 2])
DENSE = LabelManager({"background": 0, "left": 1, "right": 2}, None)
SHAPE, PATCH = (8, 9, 10), (3, 4, 5)
DATA = "nnUNetPlans_3d_fullres"


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    # looking for thread pools takes nnU-Net's loader longer than all the rest, at every batch
    monkeypatch.setattr("nnunetv2.training.dataloading.data_loader.threadpool_limits", lambda **_: nullcontext())


# ---- scans on disk, in nnU-Net's format, with expert files by our own writer


def write_scan(pre, identifier, labels, outside=None, ignore_label=IGNORE):
    """A preprocessed scan whose image says of every voxel where it is (1 + flat index; 0 is padding)."""
    folder = pre / DATA
    folder.mkdir(parents=True, exist_ok=True)
    outside = np.zeros(labels.shape, bool) if outside is None else outside
    where = 1 + np.arange(labels.size, dtype=np.float32).reshape(1, *labels.shape)
    blosc2.asarray(where, urlpath=str(folder / f"{identifier}.b2nd"), mode="w")
    blosc2.asarray(-outside[None].astype(np.int16), urlpath=str(folder / f"{identifier}_seg.b2nd"), mode="w")
    label_file = pre / f"{identifier}.npy"
    np.save(label_file, labels)
    file = expert.expert_file(pre, DATA, identifier)
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    grid = {"spacing": [1.0] * 3, "bbox_used_for_cropping": [[0, n] for n in labels.shape]}
    grid["shape_before_cropping"] = labels.shape
    reader = SimpleNamespace(read_seg=lambda path: (np.load(path)[None], None))
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], image_reader_writer_class=lambda: reader)
    configuration = SimpleNamespace(spacing=[1.0] * 3, patch_size=PATCH)
    seg_file = folder / f"{identifier}_seg.b2nd"
    expert.write_expert(file, label_file, grid, seg_file, plans, configuration, ignore_label)


def planes(seed, shape=SHAPE):
    """Three crossed planes of random classes, the rest unknown."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, IGNORE, shape).astype(np.int16)
    return keep_planes(labels, [(a, int(rng.integers(n))) for a, n in enumerate(shape)], IGNORE)


@pytest.fixture
def pre(tmp_path):
    """Two labelled scans, two unlabelled ones."""
    for number in range(2):
        write_scan(tmp_path, f"drawn_{number}", planes(number))
        write_scan(tmp_path, f"plain_{number}", np.full(SHAPE, IGNORE, np.int16))
    return tmp_path


LABELLED, UNLABELLED = ["drawn_0", "drawn_1"], ["plain_0", "plain_1"]


def make_loader(
    pre, batch_size=2, share=0.5, patch=PATCH, final=None, labels=LABELS, seed=(7,), oversample=0.33, **kwargs
):
    labelled, unlabelled = kwargs.pop("labelled", LABELLED), kwargs.pop("unlabelled", UNLABELLED)
    data = SparseDataset(str(pre / DATA), sorted({*labelled, *unlabelled}), labels)
    return TwoStreamLoader(
        data,
        batch_size,
        patch,
        patch if final is None else final,
        labels,
        oversample_foreground_percent=oversample,
        labelled=labelled,
        unlabelled=unlabelled,
        labelled_share=share,
        seed=seed,
        **kwargs,
    )


def watched(loader):
    """The loader with a list of (sample is of the labelled stream, foreground was forced) in order."""
    seen, get_bbox = [], loader.get_bbox

    def spy(data_shape, force_fg, *args, **kwargs):
        seen.append((loader._is_labelled(loader._sample), force_fg))
        return get_bbox(data_shape, force_fg, *args, **kwargs)

    loader.get_bbox = spy
    return seen


# ---- the two streams


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
@pytest.mark.parametrize("share", [1 / 3, 0.5, 0.8, 1.0])
def test_labelled_share_is_exact_over_time_and_labelled_samples_come_first(pre, batch_size, share):
    loader = make_loader(pre, batch_size, share)
    total = 0
    for number in range(1, 16):
        batch = next(loader)
        labelled = batch["labelled"].tolist()
        assert labelled == sorted(labelled, reverse=True) and len(labelled) == batch_size
        assert [key in LABELLED for key in batch["keys"]] == labelled
        total += sum(labelled)
        assert total == int(number * batch_size * share + 1e-9)


@pytest.mark.parametrize(("batch_size", "share", "full"), [(3, 0.5, 0), (3, 0.5, 4), (1, 1 / 3, 5), (5, 0.3, 1)])
def test_first_batches_are_all_labelled_and_from_then_on_the_share_is_exact(batch_size, share, full):
    loader = make_loader_without_files(batch_size, share, all_labelled_batches=full)
    labelled = [sum(name in LABELLED for name in loader.get_indices()) for _ in range(20)]
    assert labelled[:full] == [batch_size] * full
    for later in range(21 - full):
        assert sum(labelled[full : full + later]) == int(batch_size * share * later + 1e-9)


def test_a_share_of_a_third_is_exact_for_a_whole_training():
    loader = make_loader_without_files(batch_size=3, share=1 / 3)
    for _ in range(5_000):
        assert [name[0] for name in loader.get_indices()] == ["d", "p", "p"]


@pytest.mark.parametrize(("whole", "share"), [(2, 0.5), (3, 0.5), (5, 0.3), (4, 1.0)])
def test_two_processes_share_out_the_batches_of_one(whole, share):
    def kinds(loader):
        names = loader.get_indices()
        return [(name[0], loader.get_do_oversample(sample)) for sample, name in enumerate(names)]

    one = make_loader_without_files(whole, share, oversample_foreground_percent=0.5)
    parts = [slice(rank, None, 2) for rank in range(2)]
    two = [
        make_loader_without_files(
            len(range(whole)[part]), share, whole_batch_size=whole, part=part, oversample_foreground_percent=0.5
        )
        for part in parts
    ]
    centred = set()
    for _ in range(12):
        batch, shared = kinds(one), [kinds(loader) for loader in two]
        assert shared == [batch[part] for part in parts]
        centred.update(batch)
    assert {("d", True), ("d", False)} <= centred and ("p", True) not in centred


def test_a_part_that_is_not_of_the_size_of_the_loaders_batch_is_refused():
    with pytest.raises(ValueError, match="of 4 samples are not the 1 of batch_size"):
        make_loader_without_files(1, 0.5, whole_batch_size=4, part=slice(0, None, 2))


def make_loader_without_files(batch_size, share, seed=(7,), **kwargs):
    data = SimpleNamespace(identifiers=LABELLED + UNLABELLED)
    return TwoStreamLoader(
        data,
        batch_size,
        PATCH,
        PATCH,
        LABELS,
        labelled=LABELLED,
        unlabelled=UNLABELLED,
        labelled_share=share,
        seed=seed,
        **kwargs,
    )


def test_every_scan_of_a_stream_is_drawn_equally_often():
    loader = make_loader_without_files(batch_size=4, share=0.5)
    drawn = sum((loader.get_indices() for _ in range(1000)), [])
    counts = {name: drawn.count(name) / len(drawn) for name in LABELLED + UNLABELLED}
    assert all(value == pytest.approx(0.25, abs=0.04) for value in counts.values())


def test_labelled_patches_contain_a_labelled_voxel_whether_centred_on_foreground_or_not(pre):
    loader = make_loader(pre, batch_size=3, share=1.0)
    seen = watched(loader)
    for _ in range(40):
        target = decode_labels(next(loader)["target"], IGNORE)
        assert (target != IGNORE).flatten(1).any(1).all()
    assert {force for _, force in seen} == {True, False}


def test_labelled_patches_still_do_after_cropping_to_the_final_size(pre):
    """nnU-Net crops a larger patch for rotations, and cuts its middle out."""
    validation = for_sparse_labels(nnUNetTrainer.get_validation_transforms(None), IGNORE, None, None)
    loader = make_loader(pre, batch_size=3, share=1.0, patch=(7, 8, 9), final=PATCH, transforms=validation)
    for _ in range(40):
        middle = next(loader)["target"][:, :, 2:5, 2:6, 2:7]
        assert (middle != IGNORE).flatten(1).any(1).all()


def test_unlabelled_samples_come_from_everywhere_and_warn_of_nothing(pre):
    loader = make_loader(pre, batch_size=20, share=0.05, patch=(5, 7, 8))
    corners = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            batch = next(loader)
            corners |= set(batch["data"][1:, 0, 0, 0, 0].int().tolist())
            assert (decode_labels(batch["target"][1:], IGNORE) == IGNORE).all()
    first = [1 + np.ravel_multi_index(c, SHAPE) for c in np.ndindex(4, 3, 3)]
    assert corners == set(first)


def test_unlabelled_samples_of_labelled_scans_come_from_everywhere_too(pre):
    """So it is where no scan is unlabelled: both streams draw from the labelled ones."""
    write_scan(pre, "drawn_0", keep_planes(planes(0), [(0, 7)], IGNORE))
    loader = make_loader(pre, batch_size=20, share=0.05, labelled=["drawn_0"], unlabelled=["drawn_0"])
    corners = torch.cat([next(loader)["data"][1:, 0, 0, 0, 0] for _ in range(5)]).int().numpy() - 1
    assert set(np.unravel_index(corners, SHAPE)[0].tolist()) == {0, 1, 2, 3, 4, 5}


def test_a_data_set_without_ignore_label_is_sampled_as_nnunet_does(pre):
    rng = np.random.default_rng(0)
    for name in LABELLED:
        write_scan(pre, name, rng.integers(0, 3, SHAPE).astype(np.int16), ignore_label=None)
    loader = make_loader(pre, batch_size=20, share=1.0, labels=DENSE, unlabelled=[], patch=(5, 7, 8), oversample=0.0)
    corners = torch.cat([next(loader)["data"][:, 0, 0, 0, 0] for _ in range(20)])
    assert len(set(corners.tolist())) == 4 * 3 * 3


# ---- foreground


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
@pytest.mark.parametrize("share", [1 / 3, 0.5, 1.0])
def test_foreground_follows_nnunets_rule_over_the_labelled_samples_and_never_touches_the_others(pre, batch_size, share):
    loader = make_loader(pre, batch_size, share)
    stock = nnUNetDataLoader(loader._data, batch_size, PATCH, PATCH, LABELS, oversample_foreground_percent=0.33)
    seen = watched(loader)
    for _ in range(15):
        next(loader)
    forced = [force for labelled, force in seen if labelled]
    assert forced == [stock.get_do_oversample(i % batch_size) for i in range(len(forced))]
    assert not any(force for labelled, force in seen if not labelled)


@pytest.mark.parametrize(("plans", "whole", "share"), [(2, 3, 2 / 3), (4, 5, 0.8), (1, 2, 0.5), (2, 1, 1.0)])
def test_as_many_labelled_samples_are_centred_as_in_batches_of_the_plans(plans, whole, share):
    loader = make_loader_without_files(
        whole, share, plans_batch_size=plans, whole_batch_size=whole, oversample_foreground_percent=0.33
    )
    centred = []
    while len(centred) < 8 * plans:
        names = loader.get_indices()
        forced = [loader.get_do_oversample(sample) for sample in range(whole)]
        centred += [force for name, force in zip(names, forced, strict=True) if name[0] == "d"]
    alone = make_loader_without_files(plans, 1.0, oversample_foreground_percent=0.33)
    alone.get_indices()
    assert centred == [alone.get_do_oversample(sample) for sample in range(plans)] * 8


def test_a_foreground_patch_has_a_foreground_voxel_in_its_middle(pre):
    for number in range(2):
        labels = np.full(SHAPE, IGNORE, np.int16)
        labels[4] = 0
        labels[4, 5, 5 + number] = 2
        write_scan(pre, f"drawn_{number}", labels)
    loader = make_loader(pre, batch_size=2, share=1.0, oversample=1.0)
    for _ in range(5):
        assert (next(loader)["target"][:, 0, 1, 2, 2] == 2).all()


def test_every_class_is_chosen_equally_often_however_rare(pre):
    for name in LABELLED:
        labels = np.full(SHAPE, IGNORE, np.int16)
        labels[4] = 1
        labels[4, 5, 5] = 2
        write_scan(pre, name, labels)
    loader = make_loader(pre, batch_size=20, share=1.0, oversample=1.0)
    rare = [(next(loader)["target"][:, 0, 1, 2, 2] == 2).float().mean().item() for _ in range(15)]
    assert np.mean(rare) == pytest.approx(0.5, abs=0.1)


# ---- what a scan is


def test_a_case_is_nnunets_image_with_the_experts_labels(pre):
    outside = np.zeros(SHAPE, bool)
    outside[:, :2] = True
    labels = planes(5)
    write_scan(pre, "drawn_0", labels, outside)
    image, stored, previous, _ = SparseDataset(str(pre / DATA), LABELLED, LABELS).load_case("drawn_0")
    assert image.shape == stored.shape == (1, *SHAPE) and previous is None
    np.testing.assert_array_equal(expert.decode(stored[:])[0], labels)
    np.testing.assert_array_equal(stored[:][0] < 0, outside)


def places(locations):
    return {tuple(row) for row in np.asarray(locations).tolist()}


def expected_places(labels, wanted):
    return {(0, *map(int, v)) for v in np.argwhere(np.isin(labels, wanted))}


def test_locations_have_nnunets_keys_and_are_where_the_classes_lie(pre):
    labels = planes(0)
    data = SparseDataset(str(pre / DATA), LABELLED, LABELS)
    locations = data.load_case("drawn_0")[3]["class_locations"]
    assert set(locations) == {1, 2, (-1, 0, 1, 2)}
    assert nnUNetDataLoader(data, 2, PATCH, PATCH, LABELS).annotated_classes_key in locations
    for key, wanted in ((1, [1]), (2, [2]), ((-1, 0, 1, 2), [0, 1, 2])):
        assert places(locations[key]) == expected_places(labels, wanted)


def test_locations_of_regions_are_those_of_their_classes(pre):
    labels = planes(0)
    data = SparseDataset(str(pre / DATA), LABELLED, REGIONS)
    locations = data.load_case("drawn_0")[3]["class_locations"]
    assert set(locations) == {(1, 2), (2,), (-1, 0, 1, 2)}
    assert places(locations[(1, 2)]) == expected_places(labels, [1, 2])
    assert places(locations[(2,)]) == expected_places(labels, [2])


def test_locations_of_a_class_that_is_not_drawn_are_empty(pre):
    write_scan(pre, "drawn_0", np.where(planes(0) == 2, 0, planes(0)))
    data = SparseDataset(str(pre / DATA), LABELLED + UNLABELLED, LABELS)
    locations = data.load_case("drawn_0")[3]["class_locations"]
    assert len(locations[2]) == 0 and len(locations[1]) > 0
    assert all(len(found) == 0 for found in data.load_case("plain_0")[3]["class_locations"].values())


def test_a_union_keeps_the_proportions_of_its_classes(tmp_path):
    """Files keep at most 10,000 voxels a class; a rare class must not be frequent in the union for that."""
    labels = np.zeros((30, 40, 50), np.int16)
    labels[:3, :20, :10] = 1  # 600 of 60,000 voxels
    write_scan(tmp_path, "case", labels)
    union = SparseDataset(str(tmp_path / DATA), ["case"], LABELS).load_case("case")[3]["class_locations"][(-1, 0, 1, 2)]
    drawn = labels[tuple(np.asarray(union)[:, 1:].T)]
    assert len(union) > 10_000
    assert (drawn == 1).mean() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(("padding_as", "label"), [("background", 0), ("unknown", IGNORE)])
def test_padding_is_minus_1_before_the_transforms_and_what_the_setting_says_after(padding_as, label, pre):
    outside = np.zeros(SHAPE, bool)
    outside[0] = True
    write_scan(pre, "drawn_0", np.ones(SHAPE, np.int16), outside)
    size = (12, 11, 13)  # larger than the scan
    arguments = {"batch_size": 4, "share": 1.0, "patch": size, "labelled": ["drawn_0"], "unlabelled": []}
    batch = next(make_loader(pre, **arguments))
    padding = batch["data"] == 0
    first_slice = (batch["data"] > 0) & (batch["data"] <= 9 * 10)
    assert padding.any() and first_slice.any()
    assert torch.equal(batch["target"] == PADDING, padding)
    assert torch.equal(batch["target"] == -3, first_slice)  # a label outside of the mask is no padding
    validation = for_sparse_labels(nnUNetTrainer.get_validation_transforms(None), IGNORE, None, None, padding_as)
    batch = next(make_loader(pre, **arguments, transforms=validation))
    assert torch.equal(batch["target"] == label, batch["data"] == 0)
    assert torch.equal(batch["target"] == 1, batch["data"] > 0)


def test_two_dimensional_patches_are_slices(pre):
    loader = make_loader(pre, batch_size=3, share=0.5, patch=(4, 5))
    batch = next(loader)
    assert batch["data"].shape == (3, 1, 4, 5) and batch["target"].shape == (3, 1, 4, 5)


def test_labels_that_arrive_are_seen_at_the_next_batch(pre):
    loader = make_loader(pre, batch_size=1, share=1.0, labelled=["drawn_0"], unlabelled=[])
    assert set(next(loader)["target"].unique().tolist()) - {PADDING} != {2}
    write_scan(pre, "drawn_0", np.full(SHAPE, 2, np.int16))
    assert set(next(loader)["target"].unique().tolist()) - {PADDING} == {2}


# ---- random numbers of data workers


def numbers_of_worker(thread_id, seed=(7, 0), before=0):
    """What a worker process draws, whatever state it was forked with."""
    random.seed(before), np.random.seed(before), torch.manual_seed(before)
    loader = make_loader_without_files(2, 0.5, seed)
    loader.set_thread_id(thread_id)
    assert loader.thread_id == thread_id
    return (
        random.random(),
        np.random.random(),
        torch.rand(()).item(),
        tuple(sum((loader.get_indices() for _ in range(9)), [])),
    )


def test_data_workers_draw_different_numbers_from_every_source():
    workers = [numbers_of_worker(i) for i in range(3)]
    for draws in zip(*workers, strict=True):
        assert len(set(draws)) == 3
    sources = [draw for worker in workers for draw in worker[:3]]
    assert len(set(sources)) == 9


def test_a_data_worker_draws_the_same_after_a_restart_whatever_it_inherited():
    assert numbers_of_worker(1, before=0) == numbers_of_worker(1, before=99)


@pytest.mark.parametrize("other", [(8, 0), (7, 1), (7, 0, 1)])
def test_another_seed_gives_other_numbers(other):
    for one, two in zip(numbers_of_worker(0), numbers_of_worker(0, seed=other), strict=True):
        assert one != two


def test_without_workers_equal_states_give_equal_batches(pre):
    def draw():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        loader = make_loader(pre, batch_size=3, share=0.5)
        return [next(loader) for _ in range(3)]

    for one, two in zip(draw(), draw(), strict=True):
        assert one["keys"] == two["keys"]
        assert torch.equal(one["data"], two["data"]) and torch.equal(one["target"], two["target"])


def test_a_resumed_loader_goes_on_counting_where_it_stood():
    whole, first = (make_loader_without_files(3, 0.5, all_labelled_batches=2) for _ in range(2))
    counts = [sum(name in LABELLED for name in whole.get_indices()) for _ in range(8)]
    for _ in range(3):
        first.get_indices()
    second = make_loader_without_files(3, 0.5, all_labelled_batches=2, batches_drawn=first.batches_drawn)
    assert [sum(name in LABELLED for name in second.get_indices()) for _ in range(5)] == counts[3:]
    assert counts == [3, 3, 1, 2, 1, 2, 1, 2]
