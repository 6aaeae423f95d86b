"""Files as 3D Slicer and others write them, read as labels of the scan."""

import nibabel
import numpy as np
import pytest
import raw_data
import SimpleITK as sitk
from asked import PLANES, answer, ask, drawn, labels_of, make_raw, truth

from nnunet_gmabs.annotation.exchange import class_colours, class_names, slicer_colours
from nnunet_gmabs.annotation.foreign import read_foreign
from nnunet_gmabs.annotation.merge import labels_now, merge
from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.sources import source_of, waiting_sources
from nnunet_gmabs.errors import InputError

SCAN = "scan_01"


@pytest.fixture
def raw(tmp_path):
    raw = make_raw(tmp_path)
    ask(raw, {SCAN: PLANES})
    return raw


def image_of(raw, array, components=False):
    """An array (z, y, x) as a SimpleITK image where the scan lies."""
    image = sitk.GetImageFromArray(array.astype(np.uint8), isVector=components)
    image.CopyInformation(sitk.ReadImage(str(raw.images_of(SCAN)[0])))
    return image


def written(image, path, segments=()):
    """Save it, with the names, numbers and layers of segments as 3D Slicer notes them."""
    for n, (name, number, layer) in enumerate(segments):
        image.SetMetaData(f"Segment{n}_Name", name)
        image.SetMetaData(f"Segment{n}_LabelValue", str(number))
        image.SetMetaData(f"Segment{n}_Layer", str(layer))
    sitk.WriteImage(image, str(path), True)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".seg.nrrd"])
def test_every_format_comes_back(raw, tmp_path, ending):
    found = read_foreign(raw, SCAN, written(image_of(raw, truth(SCAN)), tmp_path / f"{SCAN}{ending}"))
    assert np.array_equal(found.labels, truth(SCAN)) and found.notes == ()


def test_a_cropped_and_renumbered_segmentation_is_put_back_and_read_by_name(raw, tmp_path):
    swapped = np.array([0, 2, 1])[drawn(SCAN, PLANES) % 3]  # not drawn (3) becomes nothing, left and right swap
    whole = image_of(raw, swapped)
    z, y, x = (slice(int(w.min()), int(w.max()) + 1) for w in np.nonzero(swapped))
    cropped = whole[x, y, z]
    assert cropped.GetSize() != whole.GetSize()
    path = written(cropped, tmp_path / f"{SCAN}.seg.nrrd", [("Right", 1, 0), ("LEFT", 2, 0)])
    found = read_foreign(raw, SCAN, path)
    assert np.array_equal(found.labels, np.where(drawn(SCAN, PLANES) == 3, 0, drawn(SCAN, PLANES)))
    assert f"cut down to {x.stop - x.start} x " in found.notes[1]
    assert "'Right' has number 1 in the file and 2 in dataset.json" in found.notes[0]
    merge(raw, lambda: [source_of(raw, path, "all")])
    assert np.array_equal(labels_of(raw, SCAN), drawn(SCAN, PLANES))


def test_layers_are_laid_together(raw, tmp_path):
    layers = np.stack([truth(SCAN) == 1, truth(SCAN) == 2], axis=-1)
    path = written(
        image_of(raw, layers, components=True), tmp_path / f"{SCAN}.seg.nrrd", [("left", 1, 0), ("right", 1, 1)]
    )
    found = read_foreign(raw, SCAN, path)
    assert np.array_equal(found.labels, truth(SCAN))


def test_layers_that_overlap_are_refused(raw, tmp_path):
    layers = np.stack([truth(SCAN) > 0, truth(SCAN) == 2], axis=-1)
    path = written(
        image_of(raw, layers, components=True), tmp_path / f"{SCAN}.seg.nrrd", [("left", 1, 0), ("right", 1, 1)]
    )
    with pytest.raises(InputError, match=f"segment 'right' overlaps others in {(truth(SCAN) == 2).sum()} voxels"):
        read_foreign(raw, SCAN, path)


def test_the_grey_segment_is_the_ignore_label(raw, tmp_path):
    painted = drawn(SCAN, PLANES)
    path = written(
        image_of(raw, np.where(painted == 3, 7, painted)),
        tmp_path / f"{SCAN}.seg.nrrd",
        [("left", 1, 0), ("right", 2, 0), ("not_drawn", 7, 0)],
    )
    assert np.array_equal(read_foreign(raw, SCAN, path).labels, painted)


def test_segments_that_keep_the_names_of_the_colour_table_are_merged_also_those_of_regions(tmp_path):
    regions = {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3}
    raw = make_raw(tmp_path, labels=regions)
    table = slicer_colours(class_colours(raw)).splitlines()[2:]
    segments = [(line.split()[1], int(line.split()[0]), 0) for line in table]
    assert segments == [("whole_tumor", 1, 0), ("core", 2, 0), ("not_drawn", 3, 0)]
    path = written(image_of(raw, drawn(SCAN, PLANES)), tmp_path / f"{SCAN}.seg.nrrd", segments)
    found = read_foreign(raw, SCAN, path)
    assert np.array_equal(found.labels, drawn(SCAN, PLANES)) and found.notes == ()


NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}


def test_values_that_regions_share_have_the_name_of_the_smallest_region(tmp_path):
    raw = make_raw(tmp_path, labels=NESTED)
    assert class_names(raw) == {1: "whole", 2: "core", 3: "enhancing"}
    raw.labels = {"background": 0, "whole": [1, 2, 3], "core": [3], "ignore": 4}
    assert class_names(raw) == {1: "whole 1", 2: "whole 2", 3: "core"}
    raw.labels = {"background": 0, "tip": 3, "left": [1, 2], "right": [2, 3], "whole": [3, 2, 1], "ignore": 4}
    assert class_names(raw) == {1: "left 1", 2: "left 2", 3: "tip"}, "of equally small ones the first"


@pytest.mark.parametrize("names", [("whole", "core", "enhancing"), ("whole_1", "whole_2", "enhancing")])
def test_segments_are_read_by_the_names_of_today_and_of_earlier_rounds(tmp_path, names):
    raw = make_raw(tmp_path, labels=NESTED)
    image = image_of(raw, np.array([0, 3, 1])[truth(SCAN)])  # numbers are not the values, so names must tell
    path = written(image, tmp_path / f"{SCAN}.seg.nrrd", [(names[0], 3, 0), (names[1], 1, 0), (names[2], 2, 0)])
    assert np.array_equal(read_foreign(raw, SCAN, path).labels, truth(SCAN))


def test_a_name_of_earlier_rounds_that_is_another_class_today_is_refused(tmp_path):
    """Read as today's class, voxels that were painted as another would change their class."""
    labels = {"background": 0, "core": [1, 2, 3], "core 1": [2, 3], "tip": 3, "ignore": 4}
    raw = make_raw(tmp_path, labels=labels)
    path = written(image_of(raw, truth(SCAN)), tmp_path / "a.seg.nrrd", [("core_1", 1, 0), ("core_2", 2, 0)])
    with pytest.raises(InputError, match=r"'core 1' \(2\) and 'core 1' \(1\) .* rename one of them"):
        read_foreign(raw, SCAN, path)


def test_two_classes_that_have_one_name_in_3d_slicer_are_refused_by_name_and_read_by_number(tmp_path):
    raw = make_raw(tmp_path, labels={"background": 0, "lung_left": 1, "Lung left": 2, "ignore": 3})
    image = image_of(raw, drawn(SCAN, PLANES))
    segments = [("lung_left", 1, 0), ("Lung_left", 2, 0), ("not_drawn", 3, 0)]
    message = r"a\.seg\.nrrd: 'lung_left' \(1\) and 'Lung left' \(2\) .* one name.*rename one .*dataset\.json"
    with pytest.raises(InputError, match=message):
        read_foreign(raw, SCAN, written(image, tmp_path / "a.seg.nrrd", segments))
    nameless = image_of(raw, drawn(SCAN, PLANES))
    found = read_foreign(raw, SCAN, written(nameless, tmp_path / "a.nii.gz"))
    assert np.array_equal(found.labels, drawn(SCAN, PLANES))


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([("left", 1, 0), ("tumour", 2, 0)], r"segment 'tumour' is no class.*\['background', 'ignore', 'left'"),
        ([("left", 1, 0)], r"holds the values \[2\], which belong to none of its segments"),
    ],
)
def test_segments_that_do_not_fit_are_named(raw, tmp_path, segments, message):
    with pytest.raises(InputError, match=message):
        read_foreign(raw, SCAN, written(image_of(raw, truth(SCAN)), tmp_path / "a.seg.nrrd", segments))


def test_segments_with_other_names_are_taken_by_number_and_that_is_said(raw, tmp_path):
    segments = [("Segment_1", 1, 0), ("Segment_2", 2, 0)]
    found = read_foreign(raw, SCAN, written(image_of(raw, truth(SCAN)), tmp_path / "a.seg.nrrd", segments))
    assert np.array_equal(found.labels, truth(SCAN))
    assert found.notes == ("segments 'Segment_1', 'Segment_2' are no classes: taken by their numbers",)


def test_unknown_values_are_named(raw, tmp_path):
    labels = truth(SCAN)
    labels[0, 0, :2] = 9, 5
    with pytest.raises(InputError, match=r"a.nrrd: holds the values \[5, 9\].*1 = left"):
        read_foreign(raw, SCAN, written(image_of(raw, labels), tmp_path / "a.nrrd"))


def test_values_that_are_no_integers_are_refused(raw, tmp_path):
    image = sitk.Cast(image_of(raw, truth(SCAN)), sitk.sitkFloat32) * 0.5
    with pytest.raises(InputError, match="no integers"):
        read_foreign(raw, SCAN, written(image, tmp_path / "a.nrrd"))


def test_a_shifted_and_a_flipped_file_are_refused(raw, tmp_path):
    shifted = image_of(raw, truth(SCAN))
    shifted.SetOrigin(shifted.TransformIndexToPhysicalPoint((2, 0, 0)))
    with pytest.raises(InputError, match=r"a.nrrd: shifted by \+2.00 x \+0.00 x \+0.00 voxels"):
        read_foreign(raw, SCAN, written(shifted, tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match=r"b.nii.gz: axis x runs the other way .*shifted by"):
        read_foreign(raw, SCAN, written(sitk.Flip(image_of(raw, truth(SCAN)), (True, False, False)),
                                        tmp_path / "b.nii.gz"))  # fmt: skip


def test_a_broken_file_is_named(raw, tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"nothing")
    with pytest.raises(InputError, match="a.nrrd: cannot be read"):
        read_foreign(raw, SCAN, tmp_path / "a.nrrd")


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_truncated_file_is_refused(raw, tmp_path, ending):
    path = cut(written(image_of(raw, truth(SCAN)), tmp_path / f"a{ending}"))
    with pytest.raises(InputError, match=rf"a{ending}: (truncated or damaged .*; copy or export it again|cannot be)"):
        read_foreign(raw, SCAN, path)
    if ending == raw.file_ending:
        with pytest.raises(InputError, match=rf"a{ending}: truncated or damaged .*; copy or export it again"):
            raw.read_labels(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_what_is_not_a_number_is_no_background(raw, tmp_path, ending, value):
    labels = truth(SCAN).astype(np.float32)
    labels[6, 5:9, 6:9] = value
    path = tmp_path / f"a{ending}"
    raw_data.write_image(path, labels, raw_data.scan_spacing(1))
    with pytest.raises(InputError, match=rf"a{ending}: holds NaN or infinite values; labels must be integers"):
        read_foreign(raw, SCAN, path)
    if ending == raw.file_ending:
        with pytest.raises(InputError, match="holds NaN or infinite values"):
            raw.read_labels(path)


def test_a_reader_that_turns_axes_gets_labels_in_its_own_order(tmp_path):
    folder = make_raw(tmp_path).folder
    raw_data.write_dataset_json(
        folder, raw_data.SPARSE_LABELS, scans=4, overwrite_image_reader_writer="NibabelIOWithReorient"
    )
    raw = RawFolder(folder)
    image, properties = raw.read_image(SCAN)
    assert image.shape[1:] != truth(SCAN).shape, "this reader really turns the axes here"
    raw.write_labels(np.zeros(image.shape[1:], np.uint8), tmp_path / "a.nii.gz", properties)
    found = read_foreign(raw, SCAN, written(image_of(raw, truth(SCAN)), tmp_path / "b.nrrd"))
    assert found.labels.shape == image.shape[1:]
    raw.write_labels(found.labels, tmp_path / "c.nii.gz", found.properties)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "c.nii.gz"))), truth(SCAN))


def nibabel_scan(folder, affine, **more):
    """A data set of one scan, 18 x 15 x 12 voxels in the order of the file, and its dense labels in that order."""
    raw_data.write_dataset_json(folder, raw_data.SPARSE_LABELS, scans=1, **more)
    (folder / "imagesTr").mkdir()
    labels = np.zeros((18, 15, 12), np.uint8)
    labels[5:9, 4:10, 3:8] = 1
    image = np.random.default_rng(0).normal(100 + 80.0 * labels, 10).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr/scan_00_0000.nii.gz")
    return RawFolder(folder), labels


def test_the_text_counts_voxels_as_the_file_does_where_the_reader_turns_axes(tmp_path):
    affine = np.array([[-1.1, 0, 0, 50], [0, 0, 1.3, 60], [0, -1.2, 0, -20], [0, 0, 0, 1]])  # left, down, forward
    raw, _ = nibabel_scan(tmp_path / "Dataset001_A", affine, overwrite_image_reader_writer="NibabelIOWithReorient")
    ask(raw, {"scan_00": [(0, 4), (1, 8), (2, 10)]})
    folder = raw.folder / "gmabs/requests/round_000/for_editors/scan_00"
    text = (folder / "HOW_TO.txt").read_text()
    # index 4 from below is 10 from above, of y; index 10 from the right is 7 from the left, of x
    assert "axial: 3D Slicer S = -32.0 mm; ITK-SNAP cursor y = 11 of 15; nnU-Net axis 0 index 4" in text
    assert "coronal: 3D Slicer A = 70.4 mm; ITK-SNAP cursor z = 9 of 12; nnU-Net axis 1 index 8" in text
    assert "sagittal: 3D Slicer R = 42.3 mm; ITK-SNAP cursor x = 8 of 18; nnU-Net axis 2 index 10" in text
    planes = np.asarray(nibabel.load(folder / "planes.nii.gz").dataobj)
    assert planes[:, 10].all() and planes[:, :, 8].all() and planes[7].all()


def test_labels_of_another_orientation_lie_on_the_same_grid_where_the_reader_turns_axes(tmp_path):
    affine = np.array([[-1.1, 0, 0, 50], [0, 0, 1.3, 60], [0, -1.2, 0, -20], [0, 0, 0, 1]])
    raw, labels = nibabel_scan(tmp_path / "Dataset001_A", affine, overwrite_image_reader_writer="NibabelIOWithReorient")
    (raw.folder / "labelsTr").mkdir()
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, affine))
    nibabel.save(upright, raw.label_path("scan_00"))
    assert np.array_equal(labels_now(raw, "scan_00"), np.asarray(upright.dataobj).T)
    nibabel.save(nibabel.Nifti1Image(labels[::-1], affine), raw.label_path("scan_00"))
    assert np.array_equal(labels_now(raw, "scan_00"), np.asarray(upright.dataobj).T[:, :, ::-1]), "as its header says"
    upright.affine[0, 3] += 1.1
    nibabel.save(nibabel.Nifti1Image(np.asarray(upright.dataobj), upright.affine), raw.label_path("scan_00"))
    with pytest.raises(InputError, match="labelsTr/scan_00.nii.gz: has origin"):
        labels_now(raw, "scan_00")


def test_scans_whose_axes_are_not_at_right_angles_are_asked_for_and_merged(tmp_path):
    affine = np.array([[1.1, 0.2, 0, 5], [0, 1.2, 0, 6], [0, 0, 1.3, -20], [0, 0, 0, 1]])
    raw, labels = nibabel_scan(
        tmp_path / "Dataset001_A", affine, overwrite_image_reader_writer="NibabelIO"
    )  # SimpleITK opens no such file
    ask(raw, {"scan_00": PLANES})
    how_to = (raw.folder / "gmabs/requests/round_000/for_editors/scan_00/HOW_TO.txt").read_text()
    assert "axial: 3D Slicer S = -12.2 mm; ITK-SNAP cursor z = 7 of 12; nnU-Net axis 0 index 6" in how_to
    moved = affine + np.eye(4)[:, [1, 2, 3, 0]] * 0.5
    for name, where in (("moved", moved), ("right", affine)):
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(labels, where), tmp_path / name / "scan_00.nii.gz")
    with pytest.raises(InputError, match=r"moved/scan_00.nii.gz: has .*export it on the grid of the image"):
        merge(raw, lambda: [source_of(raw, tmp_path / "moved/scan_00.nii.gz", "all")])
    with pytest.raises(InputError, match=r"scan_00.nrrd: .*scan_00_0000.nii.gz is read by nnU-Net alone"):
        read_foreign(raw, "scan_00", written(sitk.GetImageFromArray(labels.T), tmp_path / "scan_00.nrrd"))
    merge(raw, lambda: [source_of(raw, tmp_path / "right/scan_00.nii.gz", "all")])
    assert np.array_equal(labels_of(raw, "scan_00"), keep_planes(labels.T, PLANES, raw_data.IGNORE))


def test_images_of_two_axes_are_asked_for_and_answers_merged_as_flat_as_they_are(tmp_path):
    folder = tmp_path / "Dataset002_Flat"
    raw_data.write_dataset_json(folder, raw_data.SPARSE_LABELS, scans=2)
    (folder / "imagesTr").mkdir()
    image = sitk.GetImageFromArray(raw_data.scan_image(0)[5])
    image.SetSpacing((1.1, 1.05))
    image.SetOrigin((10.0, -20.0))
    for number in range(2):
        sitk.WriteImage(image, str(folder / f"imagesTr/{raw_data.name(number)}_0000.nii.gz"))
    raw = RawFolder(folder)
    ask(raw, {name: [(0, 0)] for name in raw.scans()})
    how_to = folder / "gmabs/requests/round_000/for_editors/scan_00/HOW_TO.txt"
    assert "  - the whole image; nnU-Net axis 0 index 0\n" in how_to.read_text()
    dense = raw_data.scan_labels(0)[5:6]
    answer(raw, 0, "scan_00", [(0, 0)], labels=dense)
    drawn_elsewhere = sitk.JoinSeries(sitk.GetImageFromArray(dense[0]))  # programs for volumes save one slice
    drawn_elsewhere.SetSpacing((1.1, 1.05, 1.0))
    drawn_elsewhere.SetOrigin((10.0, -20.0, 0.0))
    path = written(drawn_elsewhere, tmp_path / "scan_01_labels.nrrd")
    merge(raw, lambda: [*waiting_sources(raw), source_of(raw, path, "all")])
    for name in raw.scans():
        assert np.array_equal(labels_of(raw, name), dense)
        assert sitk.ReadImage(str(raw.label_path(name))).GetDimension() == 2
    assert merge(raw, lambda: [source_of(raw, path, "all")])[0].labels is None, "on the grid of the image"


def test_a_flat_file_is_no_slice_of_a_scan(raw, tmp_path):
    path = written(image_of(raw, truth(SCAN))[:, :, 0], tmp_path / f"{SCAN}.nrrd")
    with pytest.raises(InputError, match="has 2 axes; labels of a scan of three have three"):
        read_foreign(raw, SCAN, path)


def test_the_folder_for_editors(raw):
    folder = raw.folder / "gmabs/requests/round_000/for_editors" / SCAN
    names = ["HOW_TO.txt", "image_0000.nii.gz", "itksnap_labels.txt", "planes.nii.gz", "scan_01_labels.nii.gz"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "slicer_colors.ctbl"]
    template, _ = raw.read_labels(folder / "scan_01_labels.nii.gz")
    assert np.array_equal(template, drawn(SCAN, PLANES) // 3 * 3), "0 where asked, not drawn elsewhere"
    planes, _ = raw.read_labels(folder / "planes.nii.gz")
    assert np.array_equal(planes == 1, template == 0)
    image, original = folder / "image_0000.nii.gz", raw.images_of(SCAN)[0]
    assert image.read_bytes() == original.read_bytes()
    assert not image.samefile(original), "an editor that saves the image would change the scan itself"
    assert (folder / "slicer_colors.ctbl").read_text().splitlines()[1:] == [
        "0 background 0 0 0 0",
        "1 left 230 159 0 255",
        "2 right 86 180 233 255",
        "3 not_drawn 128 128 128 255",
    ]
    assert (folder / "itksnap_labels.txt").read_text().splitlines()[2].split() == '1 230 159 0 1 1 1 "left"'.split()


def test_the_text_says_where_the_planes_are(raw):
    text = (raw.folder / "gmabs/requests/round_000/for_editors" / SCAN / "HOW_TO.txt").read_text()
    # axis 0 is z, origin 30 mm, spacing 1.1 mm, plane 6; the direction turns x and y
    assert "axial: 3D Slicer S = 36.6 mm; ITK-SNAP cursor z = 7 of 13; nnU-Net axis 0 index 6" in text
    # axis 1 is y, spacing 1.05 mm, and runs against the world's first axis: left = 10 - 8 * 1.05 = 1.6, R = -1.6
    assert "sagittal: 3D Slicer R = -1.6 mm; ITK-SNAP cursor y = 9 of 16; nnU-Net axis 1 index 8" in text
    # axis 2 is x, spacing 1.1 mm, along the second: posterior = -20 + 9 * 1.1 = -10.1, A = 10.1
    assert "coronal: 3D Slicer A = 10.1 mm; ITK-SNAP cursor x = 10 of 19; nnU-Net axis 2 index 9" in text
    assert f"PATH/TO/{SCAN}_labels.nii.gz --round 0 --done all\n" in text and "--done 0:6 1:8 2:9" in text


def test_drawn_voxels_stay_in_the_template(tmp_path):
    raw = make_raw(tmp_path)
    ask(raw, {"scan_00": [(0, 4)]})
    template, _ = raw.read_labels(raw.folder / "gmabs/requests/round_000/for_editors/scan_00/scan_00_labels.nii.gz")
    before = labels_of(raw, "scan_00")
    assert np.array_equal(template[before != raw_data.IGNORE], before[before != raw_data.IGNORE])
    assert (template[4][before[4] == raw_data.IGNORE] == 0).all()
