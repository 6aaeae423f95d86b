"""Scans, a specialist and generalists whose every answer is known: what the tests of relabelling share."""

from dataclasses import dataclass, field
from pathlib import Path

import blosc2
import numpy as np
import torch
from torch import nn

from nnunet_gmabs.config import RelabelConfig
from nnunet_gmabs.generalist.relabel import Relabeller, Scans

SHAPE = (5, 6, 7)
PATCH = (4, 4, 4)
IGNORE = 3
CPU = torch.device("cpu")


class Rounding(nn.Module):
    """Sees class k where the last channel is nearest to k: each voxel for itself, so that windows cannot matter."""

    def __init__(self, classes=3):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Conv3d(classes, classes, 1)])
        nn.init.zeros_(self.decoder.seg_layers[0].bias)
        with torch.no_grad():
            self.decoder.seg_layers[0].weight.copy_(10 * torch.eye(classes)[..., None, None, None])
        self.classes, self.passes = classes, 0

    def forward(self, x):
        self.passes += len(x)
        places = torch.arange(self.classes).view(1, -1, 1, 1, 1)
        return self.decoder.seg_layers[0]((1.2 - (x[:, -1:] - places).abs()).clamp(min=0))


class BoxGeneralist:
    """Answers a prompt with its box, and counts."""

    name, weights_hash, wants_neighbours = "box", "0", False

    def __init__(self, quality=0.9, has_encoder=False):
        self.quality, self.has_encoder, self.encoded, self.asked = quality, has_encoder, 0, 0

    def encode(self, slice_2d):
        return self.encode_many([slice_2d])[0]

    def encode_many(self, slices):
        self.encoded += len(slices)
        return list(slices)

    def segment(self, embedding, prompts):
        self.asked += len(prompts)
        masks = np.zeros((len(prompts), *embedding.shape[:2]), bool)
        for mask, prompt in zip(masks, prompts, strict=True):
            x0, y0, x1, y1 = (int(v) for v in prompt.box_xyxy)
            mask[self.within(mask.shape, x0, y0, x1, y1)] = True
        return masks, np.full(len(prompts), self.quality, np.float32)

    def segment_many(self, items):
        return [self.segment(embedding, prompts) for embedding, prompts in items]

    def within(self, shape, x0, y0, x1, y1):
        return slice(y0, y1 + 1), slice(x0, x1 + 1)


class EllipseGeneralist(BoxGeneralist):
    """Answers with the ellipse that touches the box's edges."""

    def within(self, shape, x0, y0, x1, y1):
        y, x = np.indices(shape)
        across, down = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
        return across**2 + down**2 <= 1


@dataclass
class Case:
    """Some scans in a folder: identifier -> image (C, X, Y, Z); identifier -> what the expert drew."""

    folder: Path
    images: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray] = field(default_factory=dict)
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)

    def scans(self, order=sorted):
        for name, image in self.images.items():
            labels = self.drawn.get(name, np.full(image.shape[1:], IGNORE))
            path = self.expert_file(name)
            if not path.is_file():
                array = blosc2.asarray(labels[None].astype(np.int16), urlpath=str(path))
                array.schunk.vlmeta["gmabs"] = {}
        return Scans(
            labelled=order(self.drawn),
            unlabelled=order(self.images.keys() - self.drawn.keys()),
            image=self.images.__getitem__,
            expert_file=self.expert_file,
            spacing_mm=self.spacing_mm,
            patch_size=PATCH,
            ignore_label=IGNORE,
            device=CPU,
        )

    def expert_file(self, name):
        return self.folder / f"{name}_expert.b2nd"

    def relabeller(self, generalist, folder="rounds", order=sorted, **settings):
        settings = RelabelConfig(**{"box_outward": 0.0, "regions": "prototypes", "min_part": 0.0} | settings)
        return Relabeller(generalist, settings, self.scans(order), self.folder / folder, seed=3)


def scene(classes=2):
    """(1, 5, 6, 7): class 1 in the shape of an L, class 2 (where asked for) as a bar beside it."""
    image = np.zeros((1, *SHAPE), np.float32)
    image[0, 1:4, 1:5, 1:3] = 1
    image[0, 1:3, 3:5, 3:5] = 1
    if classes == 2:
        image[0, 2:5, 0:2, 5:7] = 2
    return image


def boxes(labels, label, axis):
    """Slow reference of what BoxGeneralist gives along an axis: in each slice the bounding box of the class."""
    mask = np.zeros(labels.shape, bool)
    for index in range(labels.shape[axis]):
        region = np.take(labels, index, axis) == label
        places = np.argwhere(region)
        if len(places):
            (r0, c0), (r1, c1) = places.min(0), places.max(0)
            where = [slice(r0, r1 + 1), slice(c0, c1 + 1)]
            where.insert(axis, index)
            mask[tuple(where)] = True
    return mask
