"""Every setting with its default and where that comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


def _check_range(
    owner: object, name: str, low: float, high: float = math.inf, open_low: bool = False, open_high: bool = False
) -> None:
    value = getattr(owner, name)
    above = low < value if open_low else low <= value
    below = value < high if open_high else value <= high
    if not (above and below) or value == math.inf:
        ends = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"{name} is {value!r}, outside {ends[0]}{low}, {high}{ends[1]}")


def _check_ramp(config: ConsistencyConfig | MutualConfig) -> None:
    """Raise ValueError where a ramp ends before it starts."""
    if config.ramp_start > config.ramp_end:
        raise ValueError(f"ramp_start is {config.ramp_start!r}, after ramp_end, {config.ramp_end!r}")


@dataclass(frozen=True)
class StreamsConfig:
    """What a batch is made of."""

    batch_share: float = 1.0
    """Size of a batch as a share of the plans' batch size, rounded up by unlabelled samples. MeanTeacher: 1.25, which
    come on top of the plans' labelled ones; 0.5 is the control with half the labelled samples."""
    labelled_share: float = 0.5
    """Share of a batch, before it is rounded up, from scans an expert has labelled. Paper: half labelled, half
    unlabelled."""
    unlabelled_from: float = 0.0
    """Share of the training in which batches are all labelled, for very small batches. Paper: 0."""

    def __post_init__(self) -> None:
        _check_range(self, "batch_share", 0, 2, open_low=True)
        _check_range(self, "labelled_share", 0, 1, open_low=True)
        _check_range(self, "unlabelled_from", 0, 1)


@dataclass(frozen=True)
class SupervisionConfig:
    """Learning from the voxels an expert has drawn."""

    dice_weight: float = 1.0
    """Ours: nnU-Net's Dice beside the cross-entropy. Paper: 0, cross-entropy alone."""
    cross_entropy_weight: float = 1.0
    """nnU-Net's own."""
    cross_entropy_average: Literal["voxels", "samples"] = "voxels"
    """Ours: mean over all labelled voxels of the batch, as nnU-Net. Paper: per sample, then over samples."""
    class_balance: float = 0.5
    """Ours: when a training begins, a class's weight in the cross-entropy is its number of labelled voxels to the
    power of minus this, so that a small class is found soon. nnU-Net, paper: 0, voxels weigh alike; 1: classes do."""
    class_balance_end: float = 0.5
    """Share of the training in which that fades to nothing: kept up, it gives too much foreground (docs/study.md)."""
    padding: Literal["background", "unknown"] = "background"
    """What is taken for the label outside of a scan, where patches are blank. nnU-Net's own: background. Unknown
    gives more false foreground (docs/study.md)."""
    padding_step: int = 2
    """Along each axis one voxel of padding in so many is learned from, which in 3D is one in eight: all of them would
    outweigh what is drawn (docs/study.md). nnU-Net's own: 1."""

    def __post_init__(self) -> None:
        _check_range(self, "dice_weight", 0)
        _check_range(self, "cross_entropy_weight", 0)
        _check_range(self, "class_balance", 0, 1)
        _check_range(self, "class_balance_end", 0, 1)
        _check_range(self, "padding_step", 1, 16)
        if self.dice_weight + self.cross_entropy_weight == 0:
            raise ValueError(
                "dice_weight and cross_entropy_weight are both 0; nothing would be learned from the expert"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """The exponential moving average of the student."""

    max_decay: float = 0.99
    """Decay min(1 - 1/(t+1), max_decay) after each step. Paper: 0.99."""

    def __post_init__(self) -> None:
        _check_range(self, "max_decay", 0, 1)


@dataclass(frozen=True)
class ConsistencyConfig:
    """What the student learns from the teacher on unlabelled samples."""

    form: Literal["confident", "mse"] = "confident"
    """mse: squared difference of probabilities (paper). confident: Dice + cross-entropy on the labels of which
    the teacher is sure (ours: the paper's form moves the student by 0.1 to 0.3 % of the supervised gradient)."""
    weight: float = 0.5
    """At full ramp. Paper: 0.1 with mse."""
    ramp_start: float = 0.25
    """Share of the training before which the term is off, and the ramp begins. Paper: 0. Ours: an early teacher may
    know one class only, and its confident labels then lock the student in."""
    ramp_end: float = 0.6
    """Share of the training at which the sigmoid ramp has reached 1. Paper: 0.6."""
    confidence: float = 0.8
    """confident: voxels whose highest teacher probability is above this are learned from. Ours."""
    mix_side: float = 0.0
    """confident: the student sees an unlabelled sample with a box of a labelled one in it, or a labelled one with a box
    of it, as in bidirectional copy-paste (Bai et al., CVPR 2023: 2/3); sides of the box in those of the patch. 0: it
    sees the sample as it is. In trainings of 600 iterations that does harm, in 2,000 it may gain (docs/study.md)."""
    noise_sd: float = 0.1
    """First view: Gaussian noise added to the normalised image. Paper: 0.1."""
    noise_limit: float = 0.2
    """... clipped to plus or minus this. Paper: 0.2."""
    log_gamma_limit: float = 0.3
    """Second view: sign(x) |x|^g with log g uniform within plus or minus this. Paper: 0.3."""

    def __post_init__(self) -> None:
        _check_range(self, "weight", 0)
        _check_range(self, "ramp_start", 0, 1)
        _check_range(self, "ramp_end", 0, 1, open_low=True)
        _check_ramp(self)
        _check_range(self, "confidence", 0, 1)
        _check_range(self, "noise_sd", 0)
        _check_range(self, "noise_limit", 0)
        _check_range(self, "log_gamma_limit", 0)
        _check_range(self, "mix_side", 0, 1, open_high=True)
        if self.mix_side and self.form != "confident":
            raise ValueError(f"mix_side is {self.mix_side!r}, which needs form: confident")


@dataclass(frozen=True)
class GeneralistConfig:
    """Which frozen promptable model is asked, and what it is shown."""

    name: Literal["embedded", "walker", "sam", "mobile_sam"] = "embedded"
    """Paper: MobileSAM. Ours: the network that comes with this package, which needs no download."""
    checkpoint: str | None = None
    """File with the weights; null: searched for by its usual name, see docs/generalist.md."""
    model_type: Literal["vit_b", "vit_l", "vit_h"] = "vit_b"
    """sam: size of the encoder. MedSAM's weights are a vit_b."""
    second_pass: bool = False
    """sam, mobile_sam: ask again with the best mask's logits as a prompt. Paper: once."""
    channel: int = 0
    """Which image channel it sees."""
    window_low: float | None = None
    """CT: black, in HU; null: the 0.5 percentile of the foreground, from the plan. Other images: percentiles of the
    scan."""
    window_high: float | None = None
    """CT: white, in HU; null: the 99.5 percentile of the foreground, from the plan."""
    slices_at_once: int = 8
    """Slices in one call of an encoder: on a GPU one vit_b slice in half precision needs some 0.5 GiB."""
    cache_gib: float = 20.0
    """sam, mobile_sam: disk for the embeddings of a data set, 2 MiB a slice: 10,000 slices, or 40 scans of 250 slices
    with a prompt. 2 GiB of the disk stay free in any case; 0: none are kept. Ours."""
    accept_hours: float = 1.0
    """sam, mobile_sam on a CPU: a training whose first round would encode for longer does not begin. Ours."""

    def __post_init__(self) -> None:
        _check_range(self, "channel", 0)
        _check_range(self, "slices_at_once", 1)
        _check_range(self, "cache_gib", 0)
        _check_range(self, "accept_hours", 0)
        if self.window_low is not None and self.window_high is not None and self.window_low >= self.window_high:
            raise ValueError(f"window_low {self.window_low} is not below window_high {self.window_high}")


@dataclass(frozen=True)
class RelabelConfig:
    """When the generalist labels the training scans anew, and what is made of its masks."""

    first: float = 0.06
    """Share of the training before which there is no round. Paper: 0.06."""
    first_iterations: int = 300
    """... and at least this many iterations: earlier the model knows nothing. Ours."""
    every: float = 0.06
    """Share of the training from round to round. Paper: 0.06."""
    until: float = 0.8
    """Share of the training after which there is no round. Paper: 0.8."""
    max_unlabelled: int | None = None
    """Unlabelled scans in a round, drawn once for a training; null: all. Paper: all."""
    views: Literal["all", "well-resolved"] = "all"
    """Axes along which slices are shown; well-resolved leaves out slices with elongated pixels. Paper: all three."""
    fusion: Literal["majority", "unanimous"] = "majority"
    """How many views must agree. Paper: majority."""
    regions: Literal["probabilities", "prototypes"] = "probabilities"
    """What is prompted: the teacher's most probable classes, or those whose prototypes are most alike (paper). Ours: on
    hippocampus the former had a Dice of 66 %, the latter of 43 % (docs/older.md)."""
    min_part: float | None = None
    """Connected parts of a class smaller than this share of its largest part are not prompted. Paper: 0, all are. Ours:
    specks stretch the boxes; null: 1 for classes that the expert's planes show in one piece, 0.1 for the others
    (generalist/parts.py)."""
    prototypes: Literal["scan", "labelled"] = "scan"
    """Class prototypes from the scan's own predicted labels (paper), or from the voxels that the expert drew."""
    box_outward: float = 0.1
    """A box's sides move outwards by up to this share of its extent. Paper: 0 to 4 pixels of an atrium grid."""
    trust: Literal["generalist", "agreement"] = "generalist"
    """agreement: only voxels to which generalist and specialist give the same label are learned from."""
    min_quality: float = 0.0
    """Masks with a lower predicted quality do not vote."""
    min_expert_agreement: float = 0.0
    """Views whose Dice with the expert's own voxels, over the labelled scans of the round, is lower do not vote in the
    unlabelled scans."""
    truth: Literal["unused", "logged", "learned"] = "unused"
    """For studies, of labelsTr_dense: the log has the Dice of teacher and pseudo labels with it; or (an oracle) it
    takes the place of the pseudo labels, which shows the most that they could give."""

    def __post_init__(self) -> None:
        _check_range(self, "first", 0, 1)
        _check_range(self, "first_iterations", 0)
        _check_range(self, "every", 0, 1, open_low=True)
        _check_range(self, "until", 0, 1)
        if self.max_unlabelled is not None:
            _check_range(self, "max_unlabelled", 0)
        if self.min_part is not None:
            _check_range(self, "min_part", 0, 1)
        _check_range(self, "box_outward", 0, 1)
        _check_range(self, "min_quality", 0, 1)
        _check_range(self, "min_expert_agreement", 0, 1)


@dataclass(frozen=True)
class NoiseTolerantConfig:
    """Learning from labels that nobody vouches for."""

    weight: float = 0.5
    """At the start: w (1 - (1 - final_share) r(progress)). Paper: 0.5."""
    final_share: float = 0.1
    """Share of the weight that is left at the end of the training. Paper: 0.1."""
    dice_weight: float = 1.0
    """Weight of a Dice term beside the clipped cross-entropy. Paper: 0; the gradient of the latter alone is
    0.6 to 2.5 % of the supervised one, and nothing is learned (docs/older.md)."""
    doubtful_as: Literal["student", "ignore", "pseudo"] = "student"
    """Voxels that confident learning doubts take the student's own label (paper), are left out, or (no denoising)
    keep the pseudo label."""
    reachable_prob: float | None = 0.8
    """Logits are clipped so that no probability can exceed this; null: not clipped. Paper: norm 1, which is 0.80 for
    two classes. Ours: the norm grows with the number of classes, so that 0.80 stays reachable. Must be above
    1 / the number of classes."""

    def __post_init__(self) -> None:
        _check_range(self, "weight", 0)
        _check_range(self, "final_share", 0, 1)
        _check_range(self, "dice_weight", 0)
        if self.reachable_prob is not None:
            _check_range(self, "reachable_prob", 0, 1, open_low=True, open_high=True)


@dataclass(frozen=True)
class ImageTeachingConfig:
    """A network learns from the other one's labels on a strongly perturbed view of unlabelled images (CMEMS 4)."""

    strength: float = 1.0
    """Factor of all ranges of the strong view's intensities (learning/strong_view.py); 0: as the weak view. Ours."""
    cutmix: float = 0.5
    """Probability of a sample to get a box of another one. Ours."""

    def __post_init__(self) -> None:
        _check_range(self, "strength", 0, 2)
        _check_range(self, "cutmix", 0, 1)


@dataclass(frozen=True)
class FeatureTeachingConfig:
    """A network learns from the other one's labels with perturbed encoder features (CMEMS 5)."""

    kinds: Literal["dropout+noise", "dropout+noise+statistics", "dropout", "noise", "statistics"] = "dropout+noise"
    """One of them is drawn for each resolution and step; statistics mixes mean and deviation between samples. Ours."""
    dropout: float = 0.5
    """Share of channels that is dropped. Ours."""
    noise: float = 0.3
    """Features are multiplied by 1 + u, u uniform within plus or minus this. Ours."""

    def __post_init__(self) -> None:
        _check_range(self, "dropout", 0, 1, open_high=True)
        _check_range(self, "noise", 0, 1)


@dataclass(frozen=True)
class MutualConfig:
    """Two networks that teach each other on unlabelled samples."""

    weight: float = 1.0
    """lambda, of both terms, at full ramp. Ours."""
    ramp_start: float = 0.0
    """Share of the training before which the networks do not teach, and the ramp begins. Paper: 0."""
    ramp_end: float = 1.0
    """Share of the training at which the sigmoid ramp has reached 1. Paper: 1."""
    confidence: float = 0.95
    """tau: voxels whose highest probability is above this are taught, at the end of the training. Ours."""
    confidence_start: float = 0.95
    """tau at the start, from where it rises linearly; 0.75 teaches more voxels early. Ours: constant."""
    dice_weight: float = 0.0
    """Weight of a Dice term beside the cross-entropy on taught voxels. Paper: 0."""
    balanced: bool = False
    """Whether a class counts by the voxels that the other network sees of it, instead of by those of which it is sure,
    which are nearly all of the background and half of the foreground. Paper: no."""
    image: ImageTeachingConfig | None = ImageTeachingConfig()
    feature: FeatureTeachingConfig | None = FeatureTeachingConfig()

    def __post_init__(self) -> None:
        _check_range(self, "weight", 0)
        _check_range(self, "ramp_start", 0, 1)
        _check_range(self, "ramp_end", 0, 1, open_low=True)
        _check_ramp(self)
        _check_range(self, "confidence", 0, 1)
        _check_range(self, "confidence_start", 0, 1)
        _check_range(self, "dice_weight", 0)
        if self.image is None and self.feature is None:
            raise ValueError("image and feature are both null, so that the networks would never teach each other")


@dataclass(frozen=True)
class SyntheticConfig:
    """Labelled samples made by pasting an exemplar's objects onto unlabelled scans (CMEMS 1)."""

    share: float = 0.5
    """Share of the labelled samples that is synthetic. Ours: exemplar and synthetic in equal shares."""
    exemplars: str = "auto"
    """Whose objects are cut out: names of scans with blanks between; all: every densely labelled training scan; auto:
    of these the one that shows most classes, and further ones only for classes that it does not show. Where no dense
    scan shows some class, all and auto make no synthetic samples: objects known on planes did harm (docs/cmems.md)."""
    position: Literal["anatomy", "anywhere"] = "anatomy"
    """anatomy: near the place that the object has in its exemplar, relative to the scan. Ours."""
    elsewhere: Literal["unknown", "background"] = "unknown"
    """Label of what is not pasted; background holds only for objects of densely labelled exemplars. Ours."""
    max_objects: int = 4
    """Objects in one sample: all of the exemplar's, or this many drawn from them. Ours."""
    margin_voxels: float = 4.0
    """Surroundings that are pasted with an object, in units of the smallest spacing; their outer half fades. Ours."""
    jitter: float = 0.1
    """Standard deviation of the shift from the object's place, as a share of its sides, margin included. Ours."""
    rotation_degrees: float = 15.0
    """Each angle is uniform within plus or minus this. Ours."""
    scale: float = 1.2
    """Size is between 1 / this and this. Ours."""
    elastic: float = 0.05
    """Standard deviation of the displacement as a share of the object's shortest side, margin included.
    Ours."""
    intensity: float = 0.0
    """After matching to the place: log contrast and brightness within plus or minus this. Ours: 0, as all was
    measured."""

    def __post_init__(self) -> None:
        _check_range(self, "share", 0, 1)
        if not self.exemplars.split():
            raise ValueError("exemplars is empty; name scans, or write 'auto' or 'all'")
        _check_range(self, "max_objects", 1)
        _check_range(self, "margin_voxels", 0)
        _check_range(self, "jitter", 0)
        _check_range(self, "rotation_degrees", 0, 180)
        _check_range(self, "scale", 1, 2)
        _check_range(self, "elastic", 0, 0.5)
        _check_range(self, "intensity", 0, 2)


@dataclass(frozen=True)
class ActiveConfig:
    """Asking an expert during a training: which scans, which planes, when, whom."""

    expert: Literal["person", "simulated"] = "person"
    """person: requests wait in the raw data set, and the training goes on without an answer. simulated: labelsTr_dense
    answers at once, for this training alone."""
    strategy: Literal[
        "random", "foreground-random", "uncertainty", "uncertainty-diverse", "disagreement", "cold-start"
    ] = "foreground-random"
    """How scans are chosen, see active/select.py. Paper: uncertainty-diverse. Ours: what measured best
    (docs/older.md)."""
    scans_per_round: int = 2
    """Paper: 2."""
    planes_per_scan: int = 3
    """One on each axis. Paper: 3."""
    budget_planes: int = 48
    """Planes asked for in the whole training. Paper: 16 scans x 3."""
    first: float = 0.08
    """Share of the training before which nothing is asked. Paper: 0.08."""
    every: float = 0.02
    """Share of the training from round to round. Paper: 0.02."""
    until: float = 0.8
    """Share of the training after which nothing is asked: later answers would hardly be learned from. Ours."""

    def __post_init__(self) -> None:
        _check_range(self, "scans_per_round", 1)
        _check_range(self, "planes_per_scan", 1)
        _check_range(self, "budget_planes", 0)
        _check_range(self, "first", 0, 1)
        _check_range(self, "every", 0, 1, open_low=True)
        _check_range(self, "until", 0, 1)


@dataclass(frozen=True)
class GMABSConfig:
    """All settings of one training; a station that is None is switched off."""

    num_epochs: int = 1000
    """nnU-Net's own."""
    num_iterations_per_epoch: int = 250
    """nnU-Net's own."""
    num_val_iterations_per_epoch: int = 50
    """nnU-Net's own."""
    initial_lr: float = 1e-2
    """nnU-Net's own."""
    save_every: int = 50
    """Epochs between two checkpoint_latest.pth. nnU-Net's own."""
    seed: int = 0
    """Initial weights, patches and perturbations follow from it; on one CPU process without data workers exactly."""
    cpu_bfloat16: bool = False
    """On a CPU: networks compute in bfloat16, as nnU-Net in float16 on a GPU. 1.5 to 1.7 times as fast where the
    processor has instructions for it (AVX512-BF16, AMX), slower where it has not. On CUDA it has no effect. Ours."""
    mirroring: bool = False
    """Whether patches, and scans to predict, are mirrored along all axes. nnU-Net's own: true. Ours: with few labels
    and 600 to 2,000 iterations mirrored patches cost more than they teach (docs/study.md)."""
    inference_network: Literal["teacher", "student", "peer", "better"] = "student"
    """Which network stock nnU-Net predicts with. Released program: the student. In trainings of some hundred steps the
    teacher, an average of the last hundred, lags behind (docs/older.md). Of two networks that teach each other (student
    and peer): better is the one with the higher pseudo Dice on the validation scans."""
    streams: StreamsConfig = StreamsConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    teacher: TeacherConfig | None = TeacherConfig()
    consistency: ConsistencyConfig | None = ConsistencyConfig()
    generalist: GeneralistConfig | None = None
    relabel: RelabelConfig | None = None
    noise_tolerant: NoiseTolerantConfig | None = None
    active: ActiveConfig | None = None
    mutual: MutualConfig | None = None
    synthetic: SyntheticConfig | None = None

    def __post_init__(self) -> None:
        _check_range(self, "num_epochs", 1)
        _check_range(self, "num_iterations_per_epoch", 1)
        _check_range(self, "num_val_iterations_per_epoch", 1)
        _check_range(self, "initial_lr", 0, open_low=True)
        _check_range(self, "save_every", 1)
        _check_range(self, "seed", 0, 2**31 - 1)
