"""A round of relabelling on scans whose answers are known."""

import errno
from dataclasses import replace

import numpy as np
import pytest
from relabel_tools import IGNORE, SHAPE, BoxGeneralist, Case, EllipseGeneralist, Rounding, boxes, scene

from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist import relabel as module
from nnunet_gmabs.generalist.fusion import fuse_views

LABELS = scene()[0].astype(int)


def read(relabeller, identifier, number=1):
    path = pseudo_labels.round_folder(relabeller.folder, number) / f"{identifier}.b2nd"
    return pseudo_labels.read_pseudo_labels(path)[:]


def fused_boxes(labels, axes=(0, 1, 2)):
    """Slow reference of a round with BoxGeneralist and boxes that are not moved."""
    votes = np.stack([[boxes(labels, label, axis) for label in (1, 2)] for axis in axes])
    return fuse_views(votes, np.stack([labels == 1, labels == 2]).astype(float))


def drawn(labels=LABELS, z=2):
    """What an expert has drawn: plane z of axis 0."""
    result = np.full(labels.shape, IGNORE)
    result[z] = labels[z]
    return result


def three(tmp_path, **more):
    """One labelled scan, two that are not, each its own."""
    images = {"a": scene(), "b": scene()[:, ::-1].copy(), "c": np.roll(scene(), 1, 2)}
    return Case(tmp_path, images, {"a": drawn()}, **more)


def test_pseudo_labels_are_the_fused_masks_and_expert_voxels_stay(tmp_path):
    case = three(tmp_path)
    case.drawn["a"][2, :2] = 2  # other than anyone would say
    relabeller = case.relabeller(BoxGeneralist())
    relabeller.run(Rounding(), 1)
    for name, image in case.images.items():
        expected = fused_boxes(image[0].astype(int))
        if name == "a":
            expected = np.where(case.drawn["a"] != IGNORE, case.drawn["a"], expected)
        np.testing.assert_array_equal(read(relabeller, name), expected)
    assert (read(relabeller, "a")[2, :2] == 2).all()
    assert pseudo_labels.newest_round(relabeller.folder) == 1


def test_a_class_without_prediction_gives_no_prompt_and_no_error(tmp_path):
    generalist = BoxGeneralist()
    relabeller = Case(tmp_path, {"a": scene(classes=1)}).relabeller(generalist)
    figures, _ = relabeller.run(Rounding(), 1)
    assert generalist.asked == 3 + 4 + 4 == figures["masks"]
    assert set(np.unique(read(relabeller, "a"))) == {0, 1}


def test_a_constant_scan_is_background(tmp_path):
    relabeller = Case(tmp_path, {"a": np.zeros((1, *SHAPE), np.float32)}).relabeller(BoxGeneralist())
    figures, examples = relabeller.run(Rounding(), 1)
    assert not read(relabeller, "a").any()
    assert (figures["slices"], figures["masks"], examples) == (0, 0, [])
    assert np.isnan([figures[name] for name in ("quality", "views_agree", "teacher_agrees", "changed")]).all()


def test_a_constant_scan_full_of_one_class_is_that_class(tmp_path):
    relabeller = Case(tmp_path, {"a": np.ones((1, *SHAPE), np.float32)}).relabeller(BoxGeneralist())
    relabeller.run(Rounding(), 1)
    assert (read(relabeller, "a") == 1).all()


def test_a_scan_with_nan_is_refused_by_name(tmp_path):
    image = scene()
    image[0, 0, 0, 0] = np.nan
    relabeller = Case(tmp_path, {"good": scene(), "scan_with_nan": image}).relabeller(BoxGeneralist())
    with pytest.raises(InputError, match="scan_with_nan: 1 of 210 values are NaN or infinite; repair the image file"):
        relabeller.run(Rounding(), 1)
    assert pseudo_labels.newest_round(relabeller.folder) is None


@pytest.mark.parametrize("channels", [2, 4])
def test_the_generalist_sees_the_channel_that_it_is_told(tmp_path, channels):
    shown = []

    class Watching(BoxGeneralist):
        def encode_many(self, slices):
            shown.extend(slices)
            return list(slices)

    image = np.zeros((channels, *SHAPE), np.float32)
    image[:, 0, 0, 0] = 1  # channels that the generalist is not told to look at are black nearly everywhere
    image[-2] = np.arange(7)
    image[-1:] = scene()  # what the specialist sees
    relabeller = Case(tmp_path, {"a": image}).relabeller(None).asking(Watching(), channel=channels - 2)
    relabeller.run(Rounding(), 1)
    np.testing.assert_array_equal(read(relabeller, "a"), fused_boxes(LABELS))
    grey = np.rint(np.arange(7) * 255 / 6)
    assert {s.shape for s in shown} == {(6, 7, 3), (5, 7, 3), (5, 6, 3)}
    for one in shown:
        columns = one[..., 0] if one.shape[1] == 7 else np.full((1, 7), grey)
        np.testing.assert_array_equal(columns, np.broadcast_to(grey, columns.shape))
    with pytest.raises(InputError, match=f"a: the generalist is to see channel {channels}"):
        relabeller.asking(Watching(), channel=channels).run(Rounding(), 2)


def test_a_round_does_not_depend_on_the_order_of_scans_or_on_a_resume(tmp_path):
    case = three(tmp_path)
    whole = case.relabeller(EllipseGeneralist(), "whole", box_outward=0.5)
    figures, _ = whole.run(Rounding(), 1)
    backwards = case.relabeller(EllipseGeneralist(), "backwards", lambda x: sorted(x)[::-1], box_outward=0.5)
    resumed = case.relabeller(EllipseGeneralist(), "resumed", box_outward=0.5)
    backwards.run(Rounding(), 1)
    resumed.run(Rounding(), 1, lambda names: names[:1])
    assert pseudo_labels.newest_round(resumed.folder) is None and resumed.missing(1) == ["b", "c"]
    resumed_figures, _ = resumed.run(Rounding(), 1)
    assert str(resumed_figures) == str(figures)
    for name in case.images:
        np.testing.assert_array_equal(read(backwards, name), read(whole, name))
        np.testing.assert_array_equal(read(resumed, name), read(whole, name))


def test_parts_make_a_whole_round(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(BoxGeneralist())
    relabeller.run(Rounding(), 1, part=slice(0, None, 2))
    assert relabeller.missing(1) == ["b"] and not pseudo_labels.is_complete(relabeller.folder, 1)
    relabeller.run(Rounding(), 1, part=slice(1, None, 2))
    assert pseudo_labels.is_complete(relabeller.folder, 1)


def test_rounds_ask_with_other_boxes(tmp_path):
    relabeller = three(tmp_path).relabeller(EllipseGeneralist())
    draws = {tuple(relabeller.rng(*key).random(4)) for key in (("a", 1, 0), ("a", 2, 0), ("a", 1, 1), ("b", 1, 0))}
    assert len(draws) == 4
    assert tuple(relabeller.rng("a", 1, 0).random(4)) in draws


def test_masks_below_the_wanted_quality_leave_background(tmp_path):
    relabeller = three(tmp_path).relabeller(BoxGeneralist(quality=0.5), min_quality=0.6)
    figures, _ = relabeller.run(Rounding(), 1)
    assert not read(relabeller, "b").any() and figures["quality"] == pytest.approx(0.5)
    np.testing.assert_array_equal(read(relabeller, "a")[2], LABELS[2])


class BadAlongAxis1(BoxGeneralist):
    """Along axis 1, whose slices are 5 x 7, it answers with everything outside of the box."""

    def segment(self, embedding, prompts):
        masks, qualities = super().segment(embedding, prompts)
        return (~masks if embedding.shape[:2] == (5, 7) else masks), qualities


def test_a_view_that_disagrees_with_the_expert_does_not_vote_in_unlabelled_scans(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(BadAlongAxis1(), min_expert_agreement=0.5)
    relabeller.run(Rounding(), 1)
    assert relabeller.axes("a", 1) == [0, 1, 2] and relabeller.axes("b", 1) == [0, 2]
    for name in "bc":  # of two views both must agree
        np.testing.assert_array_equal(read(relabeller, name), fused_boxes(case.images[name][0].astype(int), (0, 2)))
    careless = case.relabeller(BadAlongAxis1(), "careless")
    careless.run(Rounding(), 1)
    assert careless.axes("b", 1) == [0, 1, 2]
    assert (read(careless, "b") != read(relabeller, "b")).any()


def test_without_any_good_view_the_specialists_own_labels_are_learned(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(BoxGeneralist(quality=0.1), min_quality=0.5, min_expert_agreement=0.5)
    relabeller.run(Rounding(), 1)
    assert relabeller.axes("b", 1) == []
    np.testing.assert_array_equal(read(relabeller, "b"), case.images["b"][0])


def test_agreement_leaves_out_what_generalist_and_specialist_see_differently(tmp_path):
    case = three(tmp_path)
    trusting = case.relabeller(EllipseGeneralist(), "trusting")
    careful = case.relabeller(EllipseGeneralist(), "careful", trust="agreement")
    for relabeller in (trusting, careful):
        relabeller.run(Rounding(), 1)
    fused = read(trusting, "b")
    seen = case.images["b"][0].astype(int)
    assert (fused != seen).any() and (fused == seen).any()
    np.testing.assert_array_equal(read(careful, "b"), np.where(fused == seen, seen, IGNORE))
    np.testing.assert_array_equal(read(careful, "a")[2], LABELS[2])


def test_without_generalist_the_prototype_labels_are_learned(tmp_path):
    relabeller = three(tmp_path).relabeller(None)
    figures, examples = relabeller.run(Rounding(), 1)
    np.testing.assert_array_equal(read(relabeller, "a"), LABELS)
    assert figures["slices"] == 0 and examples == [] and figures["teacher_agrees"] == 1


def test_prototypes_of_the_experts_voxels(tmp_path):
    case = three(tmp_path)
    case.drawn["a"] = np.array([0, 2, 1, IGNORE])[drawn()]  # the expert calls 1 what the specialist calls 2
    relabeller = case.relabeller(None, prototypes="labelled")
    relabeller.run(Rounding(), 1)
    np.testing.assert_array_equal(read(relabeller, "b"), np.array([0, 2, 1])[case.images["b"][0].astype(int)])


def test_only_well_resolved_views(tmp_path):
    case = three(tmp_path, spacing_mm=(4.0, 1.0, 1.0))
    relabeller = case.relabeller(BoxGeneralist(), views="well-resolved")
    relabeller.run(Rounding(), 1)
    np.testing.assert_array_equal(read(relabeller, "b"), fused_boxes(case.images["b"][0].astype(int), (0,)))


def test_figures_of_a_scan_by_hand(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(BoxGeneralist())
    relabeller.run(Rounding(), 1)
    figures = relabeller.figures(1)["a"]
    votes = np.stack([[boxes(LABELS, label, axis) for label in (1, 2)] for axis in range(3)])
    fused, counts = fused_boxes(LABELS), votes.sum(0)
    assert figures.slices == 4 + 5 + 6
    assert figures.masks == (3 + 3) + (4 + 2) + (4 + 2)
    assert figures.quality == pytest.approx(0.9)
    agree = [(counts[k] == 3).sum() / (counts[k] > 0).sum() for k in (0, 1)]
    assert figures.views_agree == pytest.approx(np.mean(agree))
    dice = [2 * ((fused == k) & (LABELS == k)).sum() / ((fused == k).sum() + (LABELS == k).sum()) for k in (1, 2)]
    assert figures.teacher_agrees == pytest.approx(np.mean(dice))
    assert np.isnan(figures.changed)
    # class 1 on the plane drawn, seen along axis 0: the L (12 voxels) fills 12 of its box of 4 x 4
    assert figures.expert_views["0"] == [[12, 4, 0], [4, 0, 0]]
    assert set(figures.expert_views) == {"0", "1", "2"}
    assert figures.expert_fused[1] == [4, 0, 0]
    assert relabeller.figures(1)["b"].expert_views == {} and relabeller.figures(1)["b"].expert_fused == []


def test_truth_is_logged_and_changes_nothing(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(EllipseGeneralist())
    plain, _ = relabeller.run(Rounding(), 1)
    teacher = {name: image[0].astype(int) for name, image in case.images.items()}
    told = case.relabeller(EllipseGeneralist(), "told", truth="logged")
    told = replace(told, truth=teacher.__getitem__)
    figures, _ = told.run(Rounding(), 1)
    assert {k: v for k, v in figures.items() if "true" not in k} == pytest.approx(plain, nan_ok=True)
    assert [figures[f"true_teacher_dice/class_{k}"] for k in (1, 2)] == [1, 1]
    assert figures["true_dice/class_1"] < 1
    for k in (1, 2):
        made = np.stack([read(told, name) == k for name in teacher])
        truth = np.stack([labels == k for labels in teacher.values()])
        assert figures[f"true_dice/class_{k}"] == pytest.approx(2 * (made & truth).sum() / (made.sum() + truth.sum()))
        np.testing.assert_array_equal(made, np.stack([read(relabeller, name) == k for name in teacher]))


def test_an_oracle_takes_the_place_of_pseudo_labels(tmp_path):
    case = three(tmp_path)
    truth = {name: np.roll(image[0], 2, 1).astype(int) for name, image in case.images.items()}
    relabeller = replace(case.relabeller(BoxGeneralist(), truth="learned"), truth=truth.__getitem__)
    figures, _ = relabeller.run(Rounding(), 1)
    for name, labels in truth.items():
        np.testing.assert_array_equal(read(relabeller, name), labels)
    assert [figures[f"true_dice/class_{k}"] for k in (1, 2)] == [1, 1]


def test_the_expert_says_whether_specks_are_prompted(tmp_path):
    images = {"a": scene(), "b": scene()}
    images["b"][0, 0, 0, 0] = 1  # a speck of class 1
    dense = Case(tmp_path, images, {"a": images["a"][0].astype(int)})
    told = dense.relabeller(None, regions="probabilities", min_part=None)
    told.run(Rounding(), 1)
    assert told.min_parts() == [1.0, 1.0] and read(told, "b")[0, 0, 0] == 0
    kept = dense.relabeller(None, "kept", regions="probabilities", min_part=0.0)
    kept.run(Rounding(), 1)
    assert kept.min_parts() == [0.0, 0.0] and read(kept, "b")[0, 0, 0] == 1


def test_changed_is_the_share_of_voxels_that_differ_from_the_round_before(tmp_path):
    case = three(tmp_path)
    relabeller = case.relabeller(None)
    relabeller.run(Rounding(), 1)
    same, _ = relabeller.run(Rounding(), 2)
    assert same["changed"] == 0
    case.images["c"][0, 0, 0, :3] = 1
    figures, _ = relabeller.run(Rounding(), 3)
    assert figures["changed"] == pytest.approx(3 / 210 / 3)


def test_examples_are_few_and_from_all_over_the_round(tmp_path):
    case = Case(tmp_path, {f"scan_{i}": scene() for i in range(9)})
    _, examples = case.relabeller(BoxGeneralist()).run(Rounding(), 1)
    assert len(examples) == module.MAX_EXAMPLES
    assert len({example.title.split(",")[0] for example in examples}) == module.MAX_EXAMPLES


def test_a_full_disk_leaves_the_round_before_in_use(tmp_path, monkeypatch):
    relabeller = three(tmp_path).relabeller(None)
    relabeller.run(Rounding(), 1)
    write = pseudo_labels.write_pseudo_labels

    def full(folder, number, identifier, *more):
        if identifier == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, number, identifier, *more)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(pseudo_labels, "write_pseudo_labels", full)
        relabeller.run(Rounding(), 2)
    assert pseudo_labels.newest_round(relabeller.folder) == 1
    relabeller.run(Rounding(), 3)
    assert pseudo_labels.newest_round(relabeller.folder) == 3


def test_settings_of_a_relabeller_stay_when_scans_change(tmp_path):
    relabeller = three(tmp_path).relabeller(BoxGeneralist())
    other = relabeller.on(replace(relabeller.scans, unlabelled=[]))
    assert other.generalist is relabeller.generalist and other.missing(1) == ["a"]
