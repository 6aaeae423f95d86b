#!/usr/bin/env python
"""What a round of relabelling costs: memory of a large scan, seconds of a small one, and a second round over a first.

    python scripts/benchmark_relabel.py memory --scale 0.5
    python scripts/benchmark_relabel.py parts
    python scripts/benchmark_relabel.py rounds

memory: a scan of 512 x 512 x 300 with 8 classes and 32 features, stand-ins for network and generalist: highest
resident memory of this process. With a scale below 1 each side is shorter, and what a whole scan needs is told from
two smaller ones: memory is a constant (windows, libraries) and a share for each voxel.
parts: CPU seconds of one thread for a scan of 36 x 50 x 35 with 2 classes and the embedded generalist, by part.
rounds: vit_b of segment-anything with random weights on a few slices: CPU time of round two as a share of round one's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from torch import nn

from nnunet_gmabs.config import GeneralistConfig, RelabelConfig
from nnunet_gmabs.generalist import relabel as relabel_module
from nnunet_gmabs.generalist.embeddings import EmbeddingCache
from nnunet_gmabs.generalist.models import load_generalist
from nnunet_gmabs.generalist.relabel import Relabeller, Scans
from nnunet_gmabs.generalist.sam import SamGeneralist

LARGE = (300, 512, 512)
SMALL = (36, 50, 35)
PATCH = 64  # 32 features of 4 windows and of what is kept are then less than a GiB, at every scale
GIB = 2**30


class StandIn(nn.Module):
    """Sees class k where the image is near k; features are the distances to more classes than there are."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Conv3d(features, classes, 1)])
        weight = torch.zeros(classes, features, 1, 1, 1)
        weight[range(classes), range(classes)] = 10.0
        self.decoder.seg_layers[0].weight = nn.Parameter(weight)
        self.register_buffer("places", torch.arange(features).view(1, -1, 1, 1, 1).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, X, Y, Z) to logits (B, classes, X, Y, Z)."""
        return self.decoder.seg_layers[0]((1.2 - (x - self.places).abs()).clamp(min=0))


class Boxes:
    """A generalist that answers with the box."""

    name, weights_hash, has_encoder, wants_neighbours = "boxes", "", False, False

    def encode_many(self, slices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The slices."""
        return list(slices)

    def segment_many(self, items: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes."""
        answers = []
        for slice_2d, prompts in items:
            masks = np.zeros((len(prompts), *slice_2d.shape[:2]), bool)
            for mask, prompt in zip(masks, prompts, strict=True):
                x0, y0, x1, y1 = (int(v) for v in prompt.box_xyxy)
                mask[y0 : y1 + 1, x0 : x1 + 1] = True
            answers.append((masks, np.full(len(prompts), 0.9, np.float32)))
        return answers


def balls(shape: Sequence[int], classes: int, seed: int, noise: float = 0.15) -> np.ndarray:
    """(1, X, Y, Z) float32: foreground classes as balls along the diagonal, as bright as their number."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal(shape, dtype=np.float32) * noise
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    for k in range(1, classes):
        centre = [n * k / classes for n in shape]
        radii = [0.45 * n / classes**0.7 for n in shape]
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1
        image[inside] += k
    return image[None]


def relabeller(
    folder: Path,
    shape: Sequence[int],
    classes: int,
    scans: int,
    patch: int,
    spacing_mm: Sequence[float] = (1, 1, 1),
    **settings: Any,
) -> Relabeller:
    """Of scans made here, in none of which an expert has drawn."""
    images = {f"scan_{i}": balls(shape, classes, i) for i in range(scans)}
    for name in images:
        array = blosc2.asarray(np.full((1, *shape), classes, np.int16), urlpath=str(folder / f"{name}.b2nd"), mode="w")
        array.schunk.vlmeta["gmabs"] = {}
    where = Scans(
        labelled=[],
        unlabelled=sorted(images),
        image=images.__getitem__,
        expert_file=lambda name: folder / f"{name}.b2nd",
        spacing_mm=spacing_mm,
        patch_size=[min(patch, n) for n in shape],
        ignore_label=classes,
        device=torch.device("cpu"),
    )
    return Relabeller(None, RelabelConfig(**settings), where, folder / "rounds", seed=0)


def resident_gib() -> float:
    """Highest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory(scale: float) -> None:
    """Print the highest resident memory of a scan of this scale, and where it is below 1 that of a whole one."""
    measured = []
    for part in (0.7, 1.0) if scale < 1 else (1.0,):
        shape = [round(n * scale * part) for n in LARGE]
        with tempfile.TemporaryDirectory() as folder:
            one = relabeller(Path(folder), shape, 8, 1, PATCH).asking(Boxes())
            one.run(StandIn(8, 32).eval(), 1)
        measured.append((np.prod(shape), resident_gib()))
        print(f"{shape}: {measured[-1][1]:.2f} GiB", flush=True)
    if scale < 1:
        (voxels, gib), (more_voxels, more_gib) = measured
        share = (more_gib - gib) / (more_voxels - voxels)
        print(f"{share * GIB:.0f} bytes a voxel: {gib + share * (np.prod(LARGE) - voxels):.1f} GiB for {list(LARGE)}")


class Clock:
    """Seconds spent inside functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, owner: Any, attribute: str, name: str) -> None:
        """From now on owner.attribute is timed."""
        function: Callable = getattr(owner, attribute)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start

        setattr(owner, attribute, timed)


def parts(scans: int) -> None:
    """Print seconds a scan by part, of one thread."""
    torch.set_num_threads(1)
    generalist = load_generalist(GeneralistConfig())
    with tempfile.TemporaryDirectory() as folder:
        one = relabeller(Path(folder), SMALL, 3, scans, 56).asking(generalist)
        network = StandIn(3, 32).eval()
        warm = relabeller(Path(folder), SMALL, 3, 1, 56).asking(generalist)
        warm.run(network, 9)
        clock = Clock()
        clock.around(relabel_module, "specialist_of", "network and prototypes")
        clock.around(relabel_module, "view_votes", "prompts, generalist and masks")
        clock.around(generalist, "segment_many", "  of which generalist")
        clock.around(relabel_module.fusion, "fuse_counts", "fusion")
        clock.around(relabel_module.pseudo_labels, "write_pseudo_labels", "writing")
        start = time.process_time()
        figures, _ = one.run(network, 1)
        seconds = (time.process_time() - start) / scans
    print(f"a scan: {seconds:.2f} s, {figures['masks'] / scans:.0f} masks")
    for name, value in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:32} {value / scans:.3f} s  {value / scans / seconds:4.0%}")


def rounds(slices: int) -> None:
    """Print what round two costs, when round one has encoded every slice."""
    from segment_anything import sam_model_registry

    torch.set_num_threads(1)
    torch.manual_seed(0)
    generalist = SamGeneralist(sam_model_registry["vit_b"](), "sam", "random weights")
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "embeddings", "sam", "random weights", GIB)
        one = relabeller(Path(folder), (slices, 40, 40), 3, 1, 40, (4, 1, 1), views="well-resolved")
        one = one.asking(generalist, cache=cache)
        seconds = []
        for number in (1, 2):
            start = time.process_time()
            figures, _ = one.run(StandIn(3, 32).eval(), number)
            seconds.append(time.process_time() - start)
            print(
                f"round {number}: {figures['slices']:.0f} slices, {figures['encoded']:.0f} encoded, {seconds[-1]:.1f} s"
            )
    print(f"round two costs {seconds[1] / seconds[0]:.1%} of round one")


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "parts", "rounds"))
    parser.add_argument("--scale", type=float, default=0.5, help="memory: of each side (default: 0.5)")
    parser.add_argument("--scans", type=int, default=5, help="parts: how many (default: 5)")
    parser.add_argument("--slices", type=int, default=4, help="rounds: planes of the scan (default: 4)")
    args = parser.parse_args()
    if args.what == "memory":
        memory(args.scale)
    elif args.what == "parts":
        parts(args.scans)
    else:
        rounds(args.slices)
    return 0


if __name__ == "__main__":
    sys.exit(main())
