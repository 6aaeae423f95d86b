"""A round for people who paint in 3D Slicer or ITK-SNAP: one folder a scan, with all that has to be opened.

    for_editors/<scan>/image_0000.nii.gz      a copy of the scan, which an editor may save over
    for_editors/<scan>/<scan>_labels.nii.gz   to paint on: requested planes 0, drawn voxels as before, else "not drawn"
    for_editors/<scan>/planes.nii.gz          1 on the requested planes, to restrict painting to
    for_editors/<scan>/slicer_colors.ctbl     names and colours for 3D Slicer
    for_editors/<scan>/itksnap_labels.txt     the same for ITK-SNAP
    for_editors/<scan>/HOW_TO.txt             what to click

"Not drawn" is the value of the ignore label, painted like a class: an editor's own 0 would mean background.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_gmabs.annotation.planes import plane_mask
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedPlane, RequestedScan

EDITOR_FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")  # what these programs open, with geometry
FOLDER = "for_editors"
NOT_DRAWN = "not drawn"
# Distinct for people with the common colour deficiencies (Okabe and Ito); then the same again, darker.
COLOURS = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
GREY = (128, 128, 128)


def write_for_editors(raw: RawFolder, folder: Path, request: Request) -> None:
    """Write the folders of all scans of a request below the round's folder."""
    for scan in request.scans:
        target = folder / FOLDER / scan.identifier
        target.mkdir(parents=True)
        for path in raw.images_of(scan.identifier):
            shutil.copyfile(path, target / f"image{path.name[len(scan.identifier) :]}")
        image, properties = raw.read_image(scan.identifier)
        planes = plane_mask(image.shape[1:], (plane.plane for plane in scan.planes))
        raw.write_labels(planes.astype(np.uint8), target / f"planes{raw.file_ending}", properties)
        raw.write_labels(
            label_template(raw, scan.identifier, planes),
            target / f"{scan.identifier}_labels{raw.file_ending}",
            properties,
        )
        colours = class_colours(raw)
        (target / "slicer_colors.ctbl").write_text(slicer_colours(colours), encoding="utf-8")
        (target / "itksnap_labels.txt").write_text(itksnap_labels(colours), encoding="utf-8")
        text = how_to(raw, scan, request.round, image.shape[1:], properties)
        (target / "HOW_TO.txt").write_text(text, encoding="utf-8")


def label_template(raw: RawFolder, identifier: str, planes: np.ndarray) -> np.ndarray:
    """What is painted on: background on the requested planes, "not drawn" elsewhere, what is drawn already as it is.

    Args:
        raw: the data set, with an ignore label.
        identifier: the scan.
        planes: (X, Y, Z) bool, True on requested planes.

    Returns:
        (X, Y, Z) int32.
    """
    assert raw.ignore_label is not None
    template = np.where(planes, 0, raw.ignore_label).astype(np.int32)
    path = raw.label_path(identifier)
    if path.is_file():
        before, _ = raw.read_labels(path)
        template = np.where(before != raw.ignore_label, before, template)
    return template


def class_names(raw: RawFolder) -> dict[int, str]:
    """Value and name of everything that can be painted, rising; background and "not drawn" are not among them.

    A value is named after the smallest region that holds it, of equally small ones the first in dataset.json. Where one
    region names several values, each follows the name: with whole [1, 2, 3] and core [3] they are whole 1, whole 2,
    core.
    """
    smallest: dict[int, tuple[int, str]] = {}
    for name, value in raw.labels.items():
        values = value if isinstance(value, list) else [value]
        for v in map(int, values):
            if v not in (0, raw.ignore_label) and (v not in smallest or len(values) < smallest[v][0]):
                smallest[v] = len(values), name
    times = Counter(name for _, name in smallest.values())
    return {v: name if times[name] == 1 else f"{name} {v}" for v, (_, name) in sorted(smallest.items())}


def class_colours(raw: RawFolder) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Value, name and colour of everything that can be painted, "not drawn" last; background is not in the list."""
    found = []
    for number, (value, name) in enumerate(class_names(raw).items()):
        again = number // len(COLOURS)
        red, green, blue = (int(part * 0.7**again) for part in COLOURS[number % len(COLOURS)])
        found.append((value, name, (red, green, blue)))
    assert raw.ignore_label is not None
    return [*found, (raw.ignore_label, NOT_DRAWN, GREY)]


def slicer_colours(colours: list[tuple[int, str, tuple[int, int, int]]]) -> str:
    """A colour table of 3D Slicer: value, name, red, green, blue, opacity."""
    lines = ["# Color table file for 3D Slicer", "0 background 0 0 0 0"]
    lines += [f"{v} {name.replace(' ', '_')} {r} {g} {b} 255" for v, name, (r, g, b) in colours]
    return "\n".join(lines) + "\n"


def itksnap_labels(colours: list[tuple[int, str, tuple[int, int, int]]]) -> str:
    """A label description file of ITK-SNAP: value, colour, opacity, visibility in slices and in 3D, name."""
    lines = ["# ITK-SNAP Label Description File", '    0     0    0    0        0  0  0    "Clear Label"']
    for value, name, (r, g, b) in colours:
        opacity, in_3d = (0.2, 0) if name == NOT_DRAWN else (1, 1)
        lines.append(f'{value:5d} {r:5d} {g:4d} {b:4d} {opacity:8g}  1  {in_3d}    "{name}"')
    return "\n".join(lines) + "\n"


def how_to(raw: RawFolder, scan: RequestedScan, number: int, shape: tuple[int, ...], properties: dict[str, Any]) -> str:
    """One page of text: which planes of a scan with this shape and these properties of nnU-Net, and what to click."""
    planes = "\n".join(f"  - {describe_plane(plane, shape, properties)}" for plane in scan.planes)
    classes = ", ".join(f"{value} = {name}" for value, name, _ in class_colours(raw))
    labels_name = f"{scan.identifier}_labels{raw.file_ending}"
    return f"""{scan.identifier}, round {number}: please draw these planes completely

{planes}

Classes: 0 = background, {classes}.
On these planes everything that you leave at 0 will count as background. Grey means "not drawn"; leave it as it is.
planes{raw.file_ending} is 1 on the planes, for programs that can restrict painting to a mask.

In ITK-SNAP
  1. File > Open Main Image: image_0000{raw.file_ending}
  2. Segmentation > Open Segmentation: {labels_name}
  3. Segmentation > Import Label Descriptions: itksnap_labels.txt
  4. Go to a plane by the cursor position given above. Paint with "paint over" set to "Clear label", so that grey
     stays grey.
  5. Segmentation > Save Segmentation Image, under the same name.

In 3D Slicer
  1. Add Data: image_0000{raw.file_ending} as a volume, slicer_colors.ctbl, and {labels_name} as a segmentation
     (in "Show Options" choose Segmentation, and the colour table).
  2. Segment Editor: choose the image as source volume. Under Masking, set "Editable area" to "Outside all visible
     segments" while "{NOT_DRAWN}" is visible.
  3. Go to a plane by the position in mm given above (the number beside the slider of a slice view); where a view is
     not along the planes, click "Rotate to volume plane" in its menu.
  4. Segmentations > Export to files: file format NRRD or NIfTI, or save the segmentation as .seg.nrrd. Keep the names
     of the segments. The reference volume must be the image.

Then
  gmabs merge -d {raw.folder.name} PATH/TO/{labels_name} --round {number} --done all

--done all says that all planes above are drawn; --done {" ".join(f"{p.axis}:{p.index_orig}" for p in scan.planes)}
names them one by one. What is not said to be done is not taken.
"""


def describe_plane(plane: RequestedPlane, shape: tuple[int, ...], properties: dict[str, Any]) -> str:
    """Where a plane is, in the words of the editors, which count voxels in the order of the file.

    Args:
        plane: on the grid of nnU-Net's reader, whose axes 0, 1, 2 run backwards through x, y, z.
        shape: of the scan, (X, Y, Z) in nnU-Net's order; an image of two axes is one plane.
        properties: nnU-Net's, of the scan.
    """
    to_mm = _to_world(properties)
    if to_mm is None:
        return f"the whole image; nnU-Net axis {plane.axis} index {plane.index_orig}"
    x_y_z = 2 - plane.axis
    index = [*((n - 1) // 2 for n in shape[::-1]), 1]
    index[x_y_z] = plane.index_orig
    left, posterior, superior, _ = to_mm @ index
    main = int(np.abs(to_mm[:3, x_y_z]).argmax())
    view, letter = [("sagittal", "R"), ("coronal", "A"), ("axial", "S")][main]
    position = (-left, -posterior, superior)[main]
    to_file = _to_file(properties)
    of_file = int(np.abs(to_file[:3, x_y_z]).argmax())
    return (
        f"{view}: 3D Slicer {letter} = {position:.1f} mm; ITK-SNAP cursor {'xyz'[of_file]} = "
        f"{round((to_file @ index)[of_file]) + 1} of {shape[plane.axis]}; "
        f"nnU-Net axis {plane.axis} index {plane.index_orig}"
    )


def _to_world(properties: dict[str, Any]) -> np.ndarray | None:
    """From voxels x, y, z of nnU-Net's reader to mm towards left, posterior, superior, (4, 4); None of two axes."""
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]  # nibabel's x grows to the right, y to anterior
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ stuff.get("reoriented_affine", stuff["original_affine"])
    stuff = properties["sitk_stuff"]
    if len(stuff["origin"]) < 3:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(stuff["direction"], (3, 3)) * stuff["spacing"]
    matrix[:3, 3] = stuff["origin"]
    return matrix


def _to_file(properties: dict[str, Any]) -> np.ndarray:
    """From voxels x, y, z of nnU-Net's reader to those of the file, (4, 4): only some readers turn axes."""
    stuff = properties.get("nibabel_stuff", {})
    if "reoriented_affine" not in stuff:
        return np.eye(4)
    return np.linalg.solve(stuff["original_affine"], stuff["reoriented_affine"])
