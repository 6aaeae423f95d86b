#!/usr/bin/env python
"""Does a generalist know more than the specialist that prompts it? Dice in against Dice out, for several levels.

    python scripts/benchmark_generalist.py Dataset018_LA Dataset004_Hippocampus --generalist embedded --out curve

needs densely labelled data sets in nnU-Net's raw format. A specialist of a given Dice is made from the
truth of each scan: to the signed distance of each class (voxels) an error is added,

    level_k = distance_k + s (bias_k + tilt_k . (v - centre) / size + noise_k(v)),   p = softmax(0, level / 1.5)

bias (too large or too small) and tilt (one side too far out, the other too far in) belong to the data
set and are the same for all of its scans, as a network's mistakes are; noise is smooth and each scan's
own. s is found by bisection so that the mean Dice of the classes is the level. The largest label of p
prompts the generalist on every slice of three views, with p as prior; the masks are fused by majority,
and Dice of the fused label is compared with Dice of p's own, for each scan and class.

Writes OUT.json (everything), OUT.csv (one line for each scan, class and level), OUT.md (the table with
90 % bootstrap intervals over scans) and OUT.png (the curve).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_gmabs.annotation.raw_folder import RawFolder, find_raw_folder
from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.generalist.embedded import EmbeddedGeneralist
from nnunet_gmabs.generalist.fusion import fuse_counts, view_agreement
from nnunet_gmabs.generalist.images import ScanImages
from nnunet_gmabs.generalist.models import Generalist, load_generalist
from nnunet_gmabs.generalist.prompts import prompt_from_region
from nnunet_gmabs.generalist.views import put_slice, slices_with, take_slice
from nnunet_gmabs.report.dice import dice
from nnunet_gmabs.report.statistics import paired_bootstrap

SOFTNESS = 1.5
"""Voxels from the border at which the made specialist says 0.73."""


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the border in voxels, positive inside; -1e3 everywhere for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, -1e3, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def errors_of_dataset(classes: int, seed: int) -> list[tuple[float, np.ndarray]]:
    """Bias and tilt of each class, the same for all scans."""
    rng = np.random.default_rng(seed)
    return [(rng.choice([-0.4, 0.4]), rng.normal(0, 0.7, 3)) for _ in range(classes)]


def error_fields(
    distances: list[np.ndarray], errors: list[tuple[float, np.ndarray]], rng: np.random.Generator
) -> list[np.ndarray]:
    """What is added to the distance of each class, at strength 1."""
    fields = []
    for distance, (bias, tilt) in zip(distances, errors, strict=True):
        thickness = max(2.0, float(distance.max()))
        noise = ndimage.gaussian_filter(rng.standard_normal(distance.shape), 0.6 * thickness + 1)
        where = np.argwhere(distance > 0)
        centre, size = (where.mean(0), where.std(0) + 1) if len(where) else (np.zeros(3), np.ones(3))
        lines = [t * (np.arange(n) - c) / s for t, n, c, s in zip(tilt, distance.shape, centre, size, strict=True)]
        slope = lines[0][:, None, None] + lines[1][:, None] + lines[2]
        fields.append((bias + 0.5 * slope + noise / noise.std()).astype(np.float32))
    return fields


def specialist(truth: np.ndarray, labels: list[int], target: float, errors, seed: int) -> np.ndarray:
    """Probabilities (1 + K, X, Y, Z) whose labels have this mean Dice over the classes that the scan has."""
    distances = [signed_distance(truth == label) for label in labels]
    fields = error_fields(distances, errors, np.random.default_rng(seed))
    low, high = 0.0, 40.0
    for _ in range(18):
        strength = (low + high) / 2
        levels = [distance + strength * field for distance, field in zip(distances, fields, strict=True)]
        score = float(np.nanmean(scores_of(labels_of(levels, labels), truth, labels)))
        low, high = (strength, high) if score > target else (low, strength)
    logits = np.stack([np.zeros_like(levels[0]), *levels]) / SOFTNESS
    logits -= logits.max(0)
    probs = np.exp(logits)
    return probs / probs.sum(0)


def labels_of(levels: list[np.ndarray], labels: list[int]) -> np.ndarray:
    """The class with the highest positive level, 0 where there is none."""
    best = np.argmax(levels, 0)
    return np.where(np.max(levels, 0) > 0, np.array(labels)[best], 0)


def scores_of(prediction: np.ndarray, truth: np.ndarray, labels: list[int]) -> list[float]:
    """Dice of each class."""
    return [dice(prediction, truth, label) for label in labels]


def relabelled(
    generalist: Generalist, images: ScanImages, probs: np.ndarray, rng: np.random.Generator, with_prior: bool
) -> tuple[np.ndarray, dict[str, float]]:
    """The fused label 0..K of the generalist's masks on three views, and what it cost."""
    predicted = probs.argmax(0)
    counts = np.zeros((len(probs) - 1, *predicted.shape), np.uint8)
    margin = [probs[k] - np.delete(probs, k, 0).max(0) for k in range(len(probs))]
    start, asked, qualities = time.process_time(), 0, []
    for axis in range(3):
        items, places = [], []
        for index in slices_with(predicted > 0, axis):
            prompts, classes = [], []
            for k in range(1, len(probs)):
                region = take_slice(predicted, axis, index) == k
                prior = take_slice(probs[k], axis, index) if with_prior else None
                prompt = prompt_from_region(region, take_slice(margin[k], axis, index), rng, prior=prior)
                if prompt is not None:
                    prompts.append(images.to_square(axis, prompt))
                    classes.append(k - 1)
            items.append((images.slice(axis, int(index)), prompts))
            places.append((int(index), classes))
        embeddings = generalist.encode_many([picture for picture, _ in items])
        answers = generalist.segment_many(
            [(embedding, prompts) for embedding, (_, prompts) in zip(embeddings, items, strict=True)]
        )
        for (masks, quality), (index, classes) in zip(answers, places, strict=True):
            votes = np.zeros((len(counts), *images.shape(axis)), np.uint8)
            votes[classes] = images.from_square(axis, masks)
            put_slice(counts, axis, index, take_slice(counts, axis, index) + votes)
            qualities += quality.tolist()
        asked += sum(len(prompts) for _, prompts in items)
    seconds = time.process_time() - start
    agreement = float(np.nanmean(view_agreement(counts, 3))) if asked else float("nan")
    cost = {"prompts": asked, "seconds": seconds, "quality": float(np.mean(qualities)), "agreement": agreement}
    return fuse_counts(counts, probs[1:], 3), cost


def read_image(raw: RawFolder, identifier: str) -> tuple[np.ndarray, list[float]]:
    """(C, X, Y, Z) float and the spacing in the same order."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    files = [str(path) for path in raw.images_of(identifier)]
    reader = determine_reader_writer_from_dataset_json(raw.dataset_json, files[0], verbose=False)()
    image, properties = reader.read_images(files)
    return image, [float(step) for step in properties["spacing"]]


def measure(raw: RawFolder, generalist: Generalist, args: argparse.Namespace) -> list[dict]:
    """One row for each scan, class and level."""
    labels = sorted(raw.label_values - {0, raw.ignore_label})
    identifiers = [name for name in raw.scans() if raw.label_path(name).is_file()]
    chosen = np.random.default_rng(args.seed).permutation(identifiers)[: args.scans]
    errors, rows = errors_of_dataset(len(labels), args.seed), []
    for number, identifier in enumerate(sorted(chosen)):
        image, spacing = read_image(raw, identifier)
        truth, _ = raw.read_labels(raw.label_path(identifier))
        images = ScanImages(image, spacing, args.channel, None, generalist.wants_neighbours, identifier)
        for level in args.levels:
            seed = [args.seed, number, round(1000 * level)]
            probs = specialist(truth, labels, level, errors, seed)
            if args.tell and isinstance(generalist, EmbeddedGeneralist):
                generalist.specialist_dice = level
            fused, cost = relabelled(generalist, images, probs, np.random.default_rng(seed), not args.no_prior)
            before = scores_of(np.array([0, *labels])[probs.argmax(0)], truth, labels)
            after = scores_of(np.array([0, *labels])[fused], truth, labels)
            for label, old, new in zip(labels, before, after, strict=True):
                if np.isfinite(old):
                    row = {"data set": raw.folder.name, "scan": identifier, "class": label, "level": level}
                    rows.append(row | {"specialist": old, "fused": new} | cost)
        print(f"{raw.folder.name} {identifier} ({number + 1} of {len(chosen)})", flush=True)
    return rows


def summary(rows: list[dict]) -> list[dict]:
    """One row for each data set, class (and all of them) and level, with a 90 % interval over scans."""
    table = []
    for name in dict.fromkeys(row["data set"] for row in rows):
        classes = sorted({row["class"] for row in rows if row["data set"] == name})
        for label in ["all", *classes] if len(classes) > 1 else classes:
            for level in sorted({row["level"] for row in rows}):
                part = [
                    row
                    for row in rows
                    if row["data set"] == name and row["level"] == level and label in ("all", row["class"])
                ]
                scans = dict.fromkeys(row["scan"] for row in part)
                old, new = (
                    np.array([np.mean([row[key] for row in part if row["scan"] == scan]) for scan in scans])
                    for key in ("specialist", "fused")
                )
                gain = paired_bootstrap(new - old)
                table.append(
                    {
                        "data set": name,
                        "class": label,
                        "level": level,
                        "scans": len(scans),
                        "specialist": float(old.mean()),
                        "fused": float(new.mean()),
                        "gain": gain.mean,
                        "low": gain.low,
                        "high": gain.high,
                        "seconds": float(np.mean([row["seconds"] for row in part])),
                    }
                )
    return table


def markdown(table: list[dict]) -> str:
    """The summary as a table; Dice and gain in points."""
    lines = [
        "| data set | class | scans | specialist | fused | gain (90 % interval) | CPU s a scan |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        gain = f"{100 * row['gain']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        numbers = f"{100 * row['specialist']:.1f} | {100 * row['fused']:.1f} | {gain} | {row['seconds']:.2f}"
        lines.append(f"| {row['data set']} | {row['class']} | {row['scans']} | {numbers} |")
    return "\n".join(lines) + "\n"


def plot(table: list[dict], rows: list[dict], title: str, path: Path) -> None:
    """Dice of the fused label over Dice of the specialist, one panel for each data set and class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = list(dict.fromkeys((row["data set"], row["class"]) for row in table if row["class"] != "all"))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 4.8), squeeze=False)
    for axis, (name, label) in zip(axes[0], panels, strict=True):
        own = [row for row in rows if (row["data set"], row["class"]) == (name, label)]
        axis.plot([0.4, 1], [0.4, 1], color="0.6", linewidth=1, label="no gain")
        dots = {"color": "tab:blue", "alpha": 0.35, "label": "one scan"}
        axis.plot([row["specialist"] for row in own], [row["fused"] for row in own], ".", **dots)
        part = [row for row in table if (row["data set"], row["class"]) == (name, label)]
        x, y = ([row[key] for row in part] for key in ("specialist", "fused"))
        spread = [[row["gain"] - row["low"] for row in part], [row["high"] - row["gain"] for row in part]]
        axis.errorbar(x, y, yerr=spread, fmt="o-", color="tab:red", capsize=3, label="mean, 90 % interval of the gain")
        lowest = min(x + y + [row["fused"] for row in own] + [row["specialist"] for row in own])
        axis.set(xlim=(max(0.4, lowest - 0.03), 0.95), ylim=(max(0.4, lowest - 0.03), 0.95), aspect="equal")
        axis.set(xlabel="Dice of the specialist", title=f"{name}, class {label}")
    axes[0][0].set_ylabel("Dice of the fused label")
    axes[0][0].legend(loc="upper left", fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, write, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="data set IDs, names or folders")
    parser.add_argument("--generalist", default="embedded", help="embedded, walker, sam or mobile_sam")
    parser.add_argument("--checkpoint", type=Path, help="weights, if not where the documentation says")
    parser.add_argument("--model-type", default="vit_b", help="sam: vit_b, vit_l or vit_h")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.65, 0.72, 0.78, 0.85])
    parser.add_argument("--scans", type=int, default=16, help="of each data set")
    parser.add_argument("--channel", type=int, default=0, help="of the images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-prior", action="store_true", help="box and points only")
    parser.add_argument("--tell", action="store_true", help="tell the generalist the level (only embedded listens)")
    parser.add_argument("--out", type=Path, required=True, help="start of the names of the files written")
    args = parser.parse_args()

    generalist = load_generalist(GeneralistConfig(args.generalist, args.checkpoint, args.model_type), args.device)
    rows = [row for name in args.folders for row in measure(RawFolder(find_raw_folder(name)), generalist, args)]
    table = summary(rows)
    settings = {key: str(value) for key, value in vars(args).items()} | {"weights": generalist.weights_hash}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(
        json.dumps({"settings": settings, "summary": table, "rows": rows}, indent=1)
    )
    with open(args.out.with_suffix(".csv"), "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    args.out.with_suffix(".md").write_text(markdown(table), encoding="utf-8")
    prior = "no prior" if args.no_prior else f"prior of {'known' if args.tell else 'unknown'} Dice"
    plot(table, rows, f"{args.generalist}, {prior}", args.out.with_suffix(".png"))
    print(markdown(table))


if __name__ == "__main__":
    main()
