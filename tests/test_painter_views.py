"""What is painted at a place in the patient is read back there, and patients are shown as radiologists expect."""

import numpy as np
import painter_tools as tools
import pytest
import raw_data
import SimpleITK as sitk

from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.painter.scans import Scan, direction_of, encode
from nnunet_gmabs.annotation.painter.views import letters_towards, nearest_world_axes, view_across
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.errors import InputError

TO_WORLD = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
SHAPE = (6, 7, 5)
SPACING = (3.0, 0.7, 1.3)


def direction(letters, degrees=0.0):
    """ITK's matrix of a scan whose x, y, z indices grow towards these letters, turned about an oblique axis."""
    matrix = np.zeros((3, 3))
    for axis, letter in enumerate(letters):
        world, sign = TO_WORLD[letter]
        matrix[world, axis] = sign
    turn = sitk.VersorTransform((0.48, 0.6, 0.64), float(np.radians(degrees)))
    return np.array(turn.GetMatrix()).reshape(3, 3) @ matrix


ORIENTATIONS = {name: direction(name) for name in ("RAS", "LPS", "SLA", "ASR", "RIP")}
ORIENTATIONS |= {f"{name} oblique": direction(name, 25) for name in ("RAS", "LPS", "ASR")}


def make_scan(folder, matrix, array):
    raw_data.write_dataset_json(folder, raw_data.SPARSE_LABELS, scans=1)
    path = folder / "imagesTr" / f"{tools.NAME}_0000.nii.gz"
    raw_data.write_image(path, array, SPACING, direction=matrix.ravel().tolist())
    return sitk.ReadImage(str(path))


def world_of(image, index):
    """World coordinates of a voxel given in the array's order."""
    return np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_what_is_painted_at_a_place_in_the_world_is_read_back_there(name, tmp_path):
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)  # every voxel has a grey value of its own
    image = make_scan(tmp_path, ORIENTATIONS[name], array)
    planes = [(0, 4), (1, 2), (2, 1)]
    tools.make_request(tmp_path, numbers=[0], planes=planes)
    voxels = {(0, 4): (4, 6, 3), (1, 2): (1, 2, 3), (2, 1): (5, 3, 1)}  # on no crossing
    with tools.client_of(RawFolder(tmp_path)) as client:
        for plane, voxel in voxels.items():
            shown = client.picture(plane, "image", "<u2")
            assert np.count_nonzero(shown == array[voxel]) == 1
            client.save(plane, np.where(shown == array[voxel], 1 + plane[0] % 2, 0), 0)
            client.done(plane, 1)
        assert client.json("POST", f"/api/scans/{tools.NAME}/finish", {})["finished"]
    answer = sitk.ReadImage(str(tmp_path / "gmabs/requests/round_000/answers" / f"{tools.NAME}.nii.gz"))
    assert np.allclose(answer.GetDirection(), image.GetDirection(), atol=1e-6)
    for plane, voxel in voxels.items():
        place = answer.TransformPhysicalPointToIndex(world_of(image, voxel).tolist())
        assert answer.GetPixel(place) == 1 + plane[0] % 2
    expected = np.full(SHAPE, raw_data.IGNORE)
    expected[4], expected[:, 2], expected[:, :, 1] = 0, 0, 0
    for plane, voxel in voxels.items():
        expected[voxel] = 1 + plane[0] % 2
    assert np.array_equal(sitk.GetArrayFromImage(answer), expected)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_patients_are_shown_as_radiologists_expect(name, tmp_path):
    """Grey values are coordinates: of every picture its brighter edge is known, whatever the voxels' order."""
    for world, brighter in ((0, "L"), (1, "P"), (2, "S")):
        folder = tmp_path / brighter
        image = make_scan(folder, ORIENTATIONS[name], np.zeros(SHAPE, np.float32))
        array = np.array([world_of(image, i)[world] for i in np.ndindex(SHAPE)], np.float32).reshape(SHAPE)
        make_scan(folder, ORIENTATIONS[name], array)
        scan = Scan(RawFolder(folder), tools.NAME)
        assert sorted(view.name for view in scan.views) == ["axial", "coronal", "sagittal"]
        for axis, view in enumerate(scan.views):
            picture = scan.picture((axis, SHAPE[axis] // 2)).astype(float)
            to_right = picture[:, -1].mean() - picture[:, 0].mean()
            to_bottom = picture[-1].mean() - picture[0].mean()
            if brighter == "L" and view.name in ("axial", "coronal"):
                assert to_right > 0  # the patient's left is on the right
            if brighter == "P":
                assert view.name != "axial" or to_bottom > 0  # anterior on top
                assert view.name != "sagittal" or to_right > 0  # anterior on the left
            if brighter == "S" and view.name in ("coronal", "sagittal"):
                assert to_bottom < 0


@pytest.mark.parametrize("name", ["RAS", "LPS", "SLA", "ASR", "RIP"])
def test_letters_of_straight_scans(name):
    columns = ORIENTATIONS[name][:, ::-1]
    views = {view.name: view for view in (view_across(axis, columns) for axis in range(3))}
    assert views["axial"].edges == ("R", "L", "A", "P")
    assert views["coronal"].edges == ("R", "L", "S", "I")
    assert views["sagittal"].edges == ("A", "P", "S", "I")
    assert not any(view.oblique for view in views.values())
    # ITK's x is the array's last axis.
    assert [view_across(2 - i, columns).forward for i in range(3)] == list(name)


def test_letters_of_an_oblique_scan_name_the_strongest_side_first():
    assert letters_towards(np.array([0.8, -0.6, 0.0])) == "LA"
    assert letters_towards(np.array([-0.1, 0.2, 0.97])) == "S"
    view = view_across(0, direction("LPS", 40)[:, ::-1])
    assert view.name == "axial" and len(view.edges[0]) + len(view.edges[2]) > 2


def test_every_world_axis_is_used_once_in_a_scan_turned_by_45_degrees():
    half = np.sqrt(0.5)
    turned = np.array([[half, half, 0], [half, -half, 0], [0, 0, 1.0]])
    assert sorted(nearest_world_axes(turned)) == [0, 1, 2]


@pytest.mark.parametrize("matrix", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_to_screen_and_back_gives_the_same_plane(matrix):
    for axis in range(3):
        view = view_across(axis, matrix[:, ::-1])
        plane = np.arange(np.prod(SHAPE)).reshape(SHAPE).take(2, axis)
        assert np.array_equal(view.from_screen(view.to_screen(plane)), plane)


@pytest.mark.parametrize("matrix", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_lines_lie_where_the_other_plane_cuts(matrix):
    for axis in range(3):
        view = view_across(axis, matrix[:, ::-1])
        for other in ((a, SHAPE[a] - 2) for a in range(3)):
            marked = np.zeros(SHAPE)
            marked[tuple(other[1] if a == other[0] else slice(None) for a in range(3))] = 1
            line = view.line_of(other, SHAPE)
            if other[0] == axis:
                assert line is None
                continue
            picture = view.to_screen(marked.take(2, axis))
            found = np.flatnonzero(picture.all(axis=1 if line["along"] == "row" else 0))
            assert found.tolist() == [line["at"]]


def test_a_reader_without_geometry_gives_no_letters_but_pictures(tmp_path):
    assert direction_of({"spacing": [1, 1, 1]}) is None
    assert direction_of({"sitk_stuff": {"direction": (1.0, 0.0, 0.0, 1.0)}}) is None  # a 2d file


def test_nibabels_affine_means_the_same_as_itks_direction():
    matrix = ORIENTATIONS["ASR oblique"]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ matrix @ np.diag([0.7, 2, 3])
    for stuff in ({"original_affine": affine}, {"original_affine": np.eye(4), "reoriented_affine": affine}):
        assert np.allclose(direction_of({"nibabel_stuff": stuff}), matrix[:, ::-1])


def test_integers_are_shown_exactly_and_floats_to_one_part_in_65535():
    values = np.array([[[-1024, 7, 40]], [[3071, 0, 1]]], np.float32)
    channel = encode(values, "CT")
    assert np.array_equal(channel.low + channel.step * channel.pixels, values)
    assert (channel.level, channel.width) == (40, 400)
    values = np.random.default_rng(0).normal(0, 1, (4, 5, 6))
    channel = encode(values, "MRI")
    assert np.abs(channel.low + channel.step * channel.pixels - values).max() <= np.ptp(values) / 65535
    assert abs(channel.level) < 0.5 and 3 < channel.width < 6


def test_values_that_are_not_finite_and_constant_scans_are_shown_as_black():
    values = np.array([[[np.nan, 1.5], [np.inf, 2.5]]])
    assert encode(values, "MRI").pixels.tolist() == [[[0, 0], [0, 65535]]]
    for value in (3.0, np.nan):
        channel = encode(np.full((2, 3, 4), value), "MRI")
        assert not channel.pixels.any() and channel.width > 0


def test_a_request_for_another_grid_is_refused(tmp_path):
    raw = tools.make_round(tmp_path, planes=[(0, 12)])  # scan_00 has 12 planes on this axis
    with pytest.raises(InputError, match=r"exported again after round 0\? Put the old image back, or .*round_000 away"):
        Painter(raw, 0, "anna").scan(tools.NAME)
