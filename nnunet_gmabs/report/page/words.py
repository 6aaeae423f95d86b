"""What the columns of a training's log are called, and mean, for readers who have not read the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One kind of curve.

    Attributes:
        prefixes: of the log's columns, which are <prefix><name>.
        title: heading of the figure.
        unit: of the vertical axis.
        meaning: one or two sentences for the caption.
        percent: values are shares, shown in per cent.
    """

    prefixes: tuple[str, ...]
    title: str
    unit: str
    meaning: str
    percent: bool = False


PANELS = (
    Panel(
        ("pseudo_dice/",),
        "Pseudo Dice while training",
        "Dice, %",
        "Overlap of the network with the expert's labelled voxels of the validation scans, once an epoch; higher is "
        "better. It is measured on random patches, so it is noisy, and it is no test result.",
        percent=True,
    ),
    Panel(
        ("loss/",),
        "Loss terms",
        "loss, before weighting",
        "What the training minimises, term by term. The supervised term falls while the network learns what the "
        "expert drew; its Dice loss is 1 - Dice, so that it is never below 0, unlike stock nnU-Net's.",
    ),
    Panel(
        ("weight/",),
        "Weights of the terms",
        "factor",
        "How strongly each term counts at that epoch; a term with weight 0 teaches nothing yet.",
    ),
    Panel(
        ("gradient_ratio/",),
        "Pull of each term",
        "% of the supervised gradient",
        "Length of each weighted term's gradient against that of the supervised term: below 1 % a term hardly moves "
        "the network, above 100 % it outweighs the expert.",
        percent=True,
    ),
    Panel(
        ("share/",),
        "Voxels that take part",
        "% of voxels",
        "Which share of the voxels in a batch each source of labels reaches.",
        percent=True,
    ),
    Panel(
        ("round/expert_dice/",),
        "Generalist against expert",
        "Dice, %",
        "Overlap of the generalist's masks with the voxels that the expert drew in the training scans, at each round "
        "of relabelling: for every viewing direction alone, and for every structure after the views are fused.",
        percent=True,
    ),
    Panel(
        ("round/quality", "round/views_agree", "round/teacher_agrees", "round/changed"),
        "Rounds of relabelling",
        "%",
        "How sure the generalist says it is of its masks, how far its viewing directions agree with each other and "
        "its labels with the teacher's, and how many voxels got another label than in the round before.",
        percent=True,
    ),
)

_NAMES = {
    "loss/supervised": "expert's labels (supervised)",
    "loss/consistency": "agreement with the teacher (consistency)",
    "loss/noise_tolerant": "generalist's pseudo labels (noise-tolerant)",
    "loss/mutual_image": "the other network's labels, perturbed images",
    "loss/mutual_feature": "the other network's labels, perturbed features",
    "pseudo_dice/teacher": "teacher",
    "pseudo_dice/student": "student",
    "pseudo_dice/peer": "peer (second network)",
    "share/labelled_voxels": "labelled: drawn by the expert, or padding",
    "share/confident_voxels": "teacher is confident",
    "share/doubtful": "pseudo labels doubted by confident learning",
    "share/doubted_expert": "expert's labels that confident learning would doubt (they are kept)",
    "share/kept": "taught by the other network, all voxels",
    "round/quality": "quality that the generalist predicts for its masks",
    "round/views_agree": "viewing directions agree",
    "round/teacher_agrees": "pseudo labels agree with the teacher (Dice)",
    "round/changed": "voxels relabelled since the round before",
}
_LIKE_LOSS = ("weight/", "gradient_ratio/")


def curve_name(column: str, classes: Mapping[int, str]) -> str:
    """What a column of the log is called; its own words where it is unknown.

    >>> curve_name("weight/noise_tolerant", {})
    "generalist's pseudo labels (noise-tolerant)"
    >>> curve_name("round/expert_dice/class_2", {2: "cavity"})
    'cavity, views fused'
    """
    if column.endswith("_peer"):
        return f"{curve_name(column.removesuffix('_peer'), classes)}, second network"
    for prefix in _LIKE_LOSS:
        if column.startswith(prefix):
            column = "loss/" + column.removeprefix(prefix)
    if column in _NAMES:
        return _NAMES[column]
    name = column.rsplit("/", 1)[-1]
    kind, _, number = name.rpartition("_")
    if number.isdigit():
        if kind == "view":
            return f"views across axis {number}"
        label = "background" if number == "0" else classes.get(int(number), f"class {number}")
        if kind == "class":
            return f"{label}, views fused"
        if kind == "kept_class":
            return f"taught by the other network, {label}"
    return name.replace("_", " ").strip() or column


STRATEGIES = {
    "random": "Scans and planes were drawn at random; the plain control.",
    "foreground-random": "Scans were drawn at random, and planes at random through what the model predicted.",
    "uncertainty": "The scans with the largest share of voxels of which the model was unsure.",
    "uncertainty-diverse": "Of the scans of which the model was least sure, one from each group of similar images.",
    "disagreement": "The scans that two models saw most differently.",
    "cold-start": "No model was needed: scans were spread over what the images look like.",
}
