"""A small synthetic 3D data set in nnU-Net's raw format: two organs, two contrasts, one look-alike, from one seed.

What each scan holds, in millimetres around its centre:

- a body, an ellipsoid with a wavy surface and a fine texture;
- organ 1, a blob whose size, place, orientation and surface vary;
- organ 2, a bent tube that starts at organ 1;
- a look-alike of organ 1 on the other side, with the same intensity and no tube: background.

Half of the scans have bright organs on a dark body, the other half dark organs on a bright body. A smooth bias
field multiplies everything, noise is added, and grid size and spacing differ from scan to scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from nnunet_gmabs.errors import InputError
from nnunet_gmabs.files import write_json

LABELS = {"background": 0, "organ": 1, "tube": 2}
FIELD_OF_VIEW_MM = 50.0
# Mean intensities of air, body, organ (and look-alike), tube; one row for each contrast.
CONTRASTS = ((0.06, 0.42, 0.60, 0.80), (0.06, 0.66, 0.48, 0.30))
NOISE_SD = 0.085


@dataclass(frozen=True)
class SyntheticScan:
    """One scan with its truth.

    Attributes:
        image: (X, Y, Z) int16, never 0, about 1,000 where the intensity is 1.
        labels: (X, Y, Z) uint8 with the values of LABELS.
        spacing_mm: size of a voxel on axes 0, 1, 2.
        contrast: row of CONTRASTS.
    """

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    contrast: int


def draw_scan(rng: np.random.Generator, contrast: int) -> SyntheticScan:
    """One scan, drawn from rng alone; 40 to 56 voxels a side, 50 mm in all, so 0.9 to 1.25 mm a voxel."""
    shape = tuple(int(n) for n in rng.integers(40, 57, size=3))
    x, y, z = (round(FIELD_OF_VIEW_MM / n, 4) for n in shape)
    spacing_mm = x, y, z
    positions_mm = _positions(shape, spacing_mm)

    body = _blob(positions_mm, rng.normal(0, 0.8, 3), rng.uniform(19.5, 22.5, 3), rng, waviness=0.08)
    organ_centre = np.array([-6.0, 3.0, 4.0]) + rng.uniform(-3.0, 3.0, 3)
    organ = _blob(positions_mm, organ_centre, rng.uniform(6.0, 9.0, 3), rng, waviness=0.25) & body
    tube = _tube(positions_mm, organ_centre, rng) & body & ~organ
    look_alike_centre = np.array([7.5, -4.5, -4.0]) + rng.uniform(-3.0, 3.0, 3)
    look_alike = _blob(positions_mm, look_alike_centre, rng.uniform(5.0, 7.5, 3), rng, waviness=0.25) & body
    look_alike &= ~organ & ~tube

    labels = np.zeros(shape, dtype=np.uint8)
    labels[organ] = LABELS["organ"]
    labels[tube] = LABELS["tube"]
    image = _render(body, organ | look_alike, tube, contrast, rng)
    return SyntheticScan(image, labels, spacing_mm, contrast)


def write_data_set(
    folder: Path, train: int = 24, test: int = 8, seed: int = 0, progress: Callable[[range], Iterable[int]] = iter
) -> None:
    """Write a densely labelled data set in nnU-Net's raw format.

    Every scan has its own generator, made from (seed, its number): the first 24 scans of a larger set are those of
    a smaller one. The contrasts alternate.

    Args:
        folder: the DatasetXXX_Name folder to make; must not exist.
        train: scans in imagesTr and labelsTr.
        test: scans in imagesTs and labelsTs.
        seed: the only source of randomness.
        progress: wraps the loop over scans, such as a progress bar.

    Raises:
        InputError: if the folder exists.
    """
    import SimpleITK as sitk

    if folder.exists():
        raise InputError(f"{folder} exists already; remove it, or choose another folder")
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    for number in progress(range(train + test)):
        scan = draw_scan(np.random.default_rng([seed, number]), contrast=number % 2)
        part = "Tr" if number < train else "Ts"
        files = {
            f"images{part}/scan_{number:03d}_0000.nii.gz": scan.image,
            f"labels{part}/scan_{number:03d}.nii.gz": scan.labels,
        }
        for name, array in files.items():
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(scan.spacing_mm[::-1])  # SimpleITK counts axes the other way round
            sitk.WriteImage(image, str(folder / name), True)
    write_json(
        folder / "dataset.json",
        {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": train, "file_ending": ".nii.gz"},
    )


def _positions(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Voxel centres relative to the centre of the scan, (X, Y, Z, 3) in mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * spacing for n, spacing in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _smooth_field(positions_mm: np.ndarray, rng: np.random.Generator, scale_mm: float) -> np.ndarray:
    """A smooth random function of place with about zero mean and unit standard deviation, (X, Y, Z)."""
    knots = int(np.ceil(FIELD_OF_VIEW_MM / scale_mm)) + 4
    values = gaussian_filter(rng.standard_normal((knots,) * 3), 1.0, mode="wrap")
    values /= values.std()
    coordinates = np.moveaxis(positions_mm / scale_mm + (knots - 1) / 2, -1, 0)
    return map_coordinates(values, coordinates, order=1, mode="nearest")


def _blob(
    positions_mm: np.ndarray, centre_mm: np.ndarray, radii_mm: np.ndarray, rng: np.random.Generator, waviness: float
) -> np.ndarray:
    """Bool (X, Y, Z): an ellipsoid, turned at random, whose surface moves in and out by about waviness * radius."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    distance = np.linalg.norm((positions_mm - centre_mm) @ rotation / radii_mm, axis=-1)
    return distance + waviness * _smooth_field(positions_mm, rng, scale_mm=7.0) < 1.0


def _tube(positions_mm: np.ndarray, start_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bool (X, Y, Z): a tube along a quadratic Bezier curve that leaves start towards the back of the body."""
    bend_mm = start_mm + np.array([4.0, 12.0, -8.0]) + rng.uniform(-4.0, 4.0, 3)
    end_mm = np.array([9.0, 6.0, -7.0]) + rng.uniform(-4.0, 4.0, 3)
    t = np.linspace(0, 1, 40)[:, None]
    curve_mm = (1 - t) ** 2 * start_mm + 2 * t * (1 - t) * bend_mm + t**2 * end_mm
    radius_mm = rng.uniform(3.2, 4.6)
    nearest = np.full(positions_mm.shape[:-1], np.inf)
    for point_mm in curve_mm:
        np.minimum(nearest, np.linalg.norm(positions_mm - point_mm, axis=-1), out=nearest)
    return nearest < radius_mm


def _render(
    body: np.ndarray, organ: np.ndarray, tube: np.ndarray, contrast: int, rng: np.random.Generator
) -> np.ndarray:
    """Intensities with partial volume, texture, bias field and noise; int16, at least 1."""
    air_mean, body_mean, organ_mean, tube_mean = np.array(CONTRASTS[contrast]) + rng.normal(0, 0.02, 4)
    image = np.where(body, body_mean, air_mean)
    image[organ] = organ_mean
    image[tube] = tube_mean
    image = gaussian_filter(image, 0.6)
    texture = gaussian_filter(rng.standard_normal(body.shape), 1.5)
    image += 0.05 * texture / texture.std() * body
    unit_cube = _positions(body.shape, tuple(FIELD_OF_VIEW_MM / n for n in body.shape))
    image *= np.exp(0.15 * _smooth_field(unit_cube, rng, scale_mm=25.0))
    image += NOISE_SD * rng.standard_normal(body.shape)
    return np.clip(np.rint(image * 1000), 1, 32767).astype(np.int16)
