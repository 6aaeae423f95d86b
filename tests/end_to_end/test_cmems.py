"""CMEMS from end to end: both networks, who teaches whom, synthetic samples, checkpoints, the ensemble."""

import json
import math
import os
from unittest import mock

import numpy as np
import pytest
import raw_data
import tiny
import torch
from tiny import Training

from nnunet_gmabs.cli import main
from nnunet_gmabs.data.prepare import PrepareOptions, prepare
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.learning import mutual
from nnunet_gmabs.trainers import mutual_teaching
from nnunet_gmabs.trainers.mutual import nnUNetTrainerCMEMS, smoothed
from nnunet_gmabs.trainers.pseudo_dice import mean_pseudo_dice

pytestmark = pytest.mark.slow
CMEMS = "nnUNetTrainerCMEMS"
# planes are pasted when they are named; and so young networks are sure of nothing
PLANES = {"synthetic": {"exemplars": "scan_00 scan_01 scan_02"}}
SURE = {"mutual": {"confidence": 0.0, "confidence_start": 0.0}, **PLANES}


@pytest.fixture
def training(project, tmp_path):
    return Training(project, tmp_path, CMEMS, settings=SURE)


@pytest.fixture
def started(training):
    """A trainer with its data, before its first step."""
    return start(training)


def start(training):
    trainer = training.build()
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    return trainer


def step(trainer):
    return trainer.train_step(next(trainer.dataloader_train))


def tensors(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# ---- the command


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    """A training by the real nnUNetv2_train."""
    training = Training(project, tmp_path_factory.mktemp("cmems"), CMEMS, settings=SURE)
    training.command()
    return training


def test_the_command_leaves_log_picture_and_both_networks(trained):
    content = tiny.load(trained.final)
    ours = content["gmabs"]
    assert set(ours["networks"]) == {"student", "peer"}
    assert tiny.differences(ours["networks"]["student"], ours["networks"]["peer"]) != []
    name = max(ours["smoothed_dice"], key=ours["smoothed_dice"].get)
    assert tiny.differences(content["network_weights"], ours["networks"][name]) == []
    rows = tiny.read_log(trained)
    for suffix in ("", "_peer"):
        for term in ("supervised", "mutual_image", "mutual_feature"):
            assert all(math.isfinite(row[f"loss/{term}{suffix}"]) for row in rows)
        assert all(row[f"share/kept{suffix}"] == 1 for row in rows)
    assert {"share/kept_class_0", "pseudo_dice/student", "pseudo_dice/peer"} <= rows[0].keys()
    assert (trained.output / "synthetic_samples.png").read_bytes()[:4] == b"\x89PNG"
    assert "objects of synthetic samples are cut out of scan_" in trained.log()


def test_stock_nnunet_averages_the_exported_networks(trained, tmp_path, capsys):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    models = tmp_path / "model"
    assert main(["export", "-m", str(trained.output), "--ensemble", "-o", str(models)]) == 0
    assert "-f 0 1" in capsys.readouterr().out
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    image = torch.randn(1, 17, 18, 19, generator=torch.Generator().manual_seed(0))
    logits = {}
    for folds in ((0,), (1,), (0, 1)):
        predictor.initialize_from_trained_model_folder(str(models), folds)
        logits[folds] = predictor.predict_logits_from_preprocessed_data(image).float()
    assert not torch.allclose(logits[0,], logits[1,])
    torch.testing.assert_close(logits[0, 1], (logits[0,] + logits[1,]) / 2, rtol=1e-2, atol=1e-2)  # nnU-Net's are half


def test_an_export_from_inside_the_fold_and_one_that_a_full_disk_ends(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(trained.output)
    models = tmp_path / "two words"
    assert main(["export", "-m", ".", "--ensemble", "-o", str(models)]) == 0
    assert f"-m '{models}' -f 0 1" in capsys.readouterr().out

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert main(["export", "-m", ".", "--ensemble", "-o", str(tmp_path / "half")]) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["two words"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "teacher"], "holds student, peer, no 'teacher'"),
        (["--ensemble", "-chk", "none.pth"], "none.pth: not there"),
        (["--ensemble", "-o", "."], "is there already"),
    ],
)
def test_exports_that_are_refused(arguments, message, trained, capsys):
    assert main(["export", "-m", str(trained.output), *arguments]) == 2
    assert message in capsys.readouterr().err


# ---- one step


def test_the_networks_differ_and_have_their_own_optimisers(started):
    student, peer = started.networks().values()
    assert "/encoder.stages.0.0.convs.0.conv.weight" in tiny.differences(tensors(student), tensors(peer))
    for network, optimizer in ((student, started.optimizer), (peer, started.peer.optimizer)):
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert known == {id(p) for p in network.parameters()}
    before = tensors(student), tensors(peer)
    step(started)
    assert tiny.differences(tensors(student), before[0]) != [] != tiny.differences(tensors(peer), before[1])


def test_each_network_is_taught_by_the_other_and_never_by_itself(started, monkeypatch):
    """The student says class 1 everywhere, the peer class 2; what reaches each loss is the other one's label."""
    for network, label in ((started.network, 1), (started.peer.module, 2)):
        for layer in network.decoder.seg_layers:
            torch.nn.init.zeros_(layer.weight)
            layer.bias.data = torch.nn.functional.one_hot(torch.tensor(label), 3).float()
    heard = []

    def loss(logits, taught, *settings):
        says = logits.detach().mean((0, 2, 3, 4)).argmax().item()
        heard.append((says, taught.labels.unique().tolist()))
        return mutual.mutual_loss(logits, taught, *settings)

    monkeypatch.setattr(mutual_teaching, "mutual_loss", loss)
    step(started)
    assert heard == [(1, [2]), (1, [2]), (2, [1]), (2, [1])]  # image and feature term of each network


def test_a_network_learns_without_moving_its_teacher(started):
    """One network's whole step leaves no gradient in the other."""
    batch = next(started.dataloader_train)
    started._weak = batch["data"][~batch["labelled"]]
    started._taught = started._label(started.peer.network)
    started._strong, started._boxes = started._draw_strong_view()
    for part in started.loss_parts(started.own_samples(batch)):
        sum(part().values()).backward()
    assert all(p.grad is not None for p in started.network.parameters())
    assert all(p.grad is None for p in started.peer.module.parameters())


def test_both_networks_label_before_either_learns(started, monkeypatch):
    calls = []
    label, learn = nnUNetTrainerCMEMS._label, nnUNetTrainerCMEMS._learn_from
    monkeypatch.setattr(nnUNetTrainerCMEMS, "_label", lambda *a: calls.append("label") or label(*a))
    monkeypatch.setattr(nnUNetTrainerCMEMS, "_learn_from", lambda *a: calls.append("learn") or learn(*a))
    step(started)
    assert calls == ["label", "label", "learn", "learn"]


def test_perturbed_features_leave_the_clean_pass_untouched(started):
    batch = next(started.dataloader_train)
    started._weak = batch["data"][~batch["labelled"]]
    started._taught = started._label(started.peer.network)
    with torch.no_grad():
        before = [o.clone() for o in started.network(batch["data"])]
        started.feature_term()
        halves = started.halves[id(started.network)]
        after, joined = started.network(batch["data"]), halves.decode(halves.encode(batch["data"]))
    for a, b, c in zip(before, after, joined, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_where_no_voxel_is_kept_the_step_is_finite_and_teaches_nothing(project, tmp_path):
    none = {"mutual": {"confidence": 1.0, "confidence_start": 1.0}}
    trainer = start(Training(project, tmp_path, CMEMS, settings=none))
    assert math.isfinite(step(trainer)["loss"])
    log = trainer.epoch_means.take()
    assert log["loss/mutual_image"] == log["loss/mutual_feature"] == log["share/kept"] == 0
    assert log["loss/supervised"] > 0


@pytest.mark.parametrize("labelled", [True, False])
def test_terms_without_a_sample_are_left_out_of_both_networks_logs(labelled, started):
    batch = next(started.dataloader_train)
    started.train_step(batch | {"labelled": torch.full_like(batch["labelled"], labelled)})
    for means in (started.epoch_means, started.peer.epoch_means):
        log = means.take()
        left_out = {name for name, value in log.items() if name.startswith("loss/") and math.isnan(value)}
        assert left_out == ({"loss/mutual_image", "loss/mutual_feature"} if labelled else {"loss/supervised"})
        assert all(math.isnan(value) for name, value in log.items() if name.startswith("gradient_ratio/"))


def test_mixed_precision_skips_only_the_network_whose_step_is_not_finite(started, monkeypatch):
    started.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [tensors(network) for network in started.networks().values()]
    original = started.feature_term
    first = iter([math.inf, 1.0])
    monkeypatch.setattr(started, "feature_term", lambda: original() * next(first))
    step(started)
    after = [tensors(network) for network in started.networks().values()]
    assert tiny.differences(before[0], after[0]) == [] != tiny.differences(before[1], after[1])


# ---- batches


def test_half_of_the_labelled_samples_are_synthetic_and_show_pasted_classes(started):
    synthetic = labelled = 0
    shown = set()
    for _ in range(20):
        batch = next(started.dataloader_train)
        for i, name in enumerate(batch["keys"]):
            labelled += bool(batch["labelled"][i])
            if name.startswith("synthetic/"):
                assert batch["labelled"][i] and name.removeprefix("synthetic/") in started.scans.unlabelled
                shown |= set(batch["target"][0][i].unique().tolist())
                synthetic += 1
    assert labelled == 20 and synthetic == 10
    assert shown == {0, 1, 2, 3}


def test_one_network_alone_can_learn_from_them_too(project, tmp_path):
    trainer = start(Training(project, tmp_path, "nnUNetTrainerSparseSynthetic", settings=PLANES))
    names = [name for _ in range(10) for name in next(trainer.dataloader_train)["keys"]]
    synthetic = [name.removeprefix("synthetic/") for name in names if name.startswith("synthetic/")]
    assert len(synthetic) == len(names) / 2 and set(synthetic) <= set(trainer.scans.unlabelled)
    assert set(names) - {f"synthetic/{name}" for name in synthetic} <= set(trainer.scans.labelled)
    assert math.isfinite(step(trainer)["loss"])


def test_without_synthetic_part_there_are_none(project, tmp_path):
    trainer = start(Training(project, tmp_path, "nnUNetTrainerCMEMSNoSynthetic", settings=SURE))
    assert trainer.synthetic_scans is None
    assert not any(n.startswith("synthetic/") for _ in range(6) for n in next(trainer.dataloader_train)["keys"])


@pytest.mark.parametrize("name", [CMEMS, "nnUNetTrainerSparseSynthetic"])
def test_planes_alone_are_not_pasted_unless_they_are_named(name, project, tmp_path):
    training = Training(project, tmp_path, name)
    trainer = start(training)
    assert trainer.synthetic_scans is None and math.isfinite(step(trainer)["loss"])
    assert "WARNING: no synthetic samples: no densely labelled scan shows every class" in training.log()


def test_a_densely_labelled_scan_is_the_exemplar(project, tmp_path):
    own = project.copy(tmp_path)
    raw_data.write_labels(own.raw, 1, planes=None)
    with mock.patch.dict(os.environ, own.variables()):
        prepare(PrepareOptions(own.dataset, configurations=("3d_fullres",), plans=tiny.PLANS))
    trainer = start(Training(own, tmp_path, CMEMS))
    assert list(trainer.synthetic_scans.objects) == ["scan_01"]
    assert trainer.synthetic_scans.objects["scan_01"][0].dense


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_of_one_and_odd_batch(batch_size, project, tmp_path):
    own = project.copy(tmp_path)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = batch_size
    own.edit(f"{tiny.PLANS}.json", **plans)
    trainer = start(Training(own, tmp_path, CMEMS, settings=SURE))
    assert all(math.isfinite(step(trainer)["loss"]) for _ in range(4))


# ---- configurations, variants, refusals


@pytest.mark.parametrize(
    ("trainer", "terms"),
    [
        (CMEMS, {"mutual_image", "mutual_feature"}),
        ("nnUNetTrainerCMEMSNoImage", {"mutual_feature"}),
        ("nnUNetTrainerCMEMSNoFeature", {"mutual_image"}),
    ],
)
def test_variants_and_2d(trainer, terms, project, tmp_path):
    trainer = start(Training(project, tmp_path, trainer, "2d", settings=SURE))
    step(trainer)
    log = trainer.epoch_means.take()
    assert {n.removeprefix("loss/") for n in log if n.startswith("loss/mutual")} == terms
    assert all(log[f"gradient_ratio/{term}"] > 0 for term in terms)


def test_a_residual_encoder_trains_and_another_architecture_is_refused_by_name(project, tmp_path):
    own = project.copy(tmp_path)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    network = plans["configurations"]["3d_fullres"]["architecture"]
    for name, works in (("ResidualEncoderUNet", True), ("ResidualUNet", False)):
        network["network_class_name"] = f"dynamic_network_architectures.architectures.unet.{name}"
        network["arch_kwargs"].pop("n_conv_per_stage", None)
        network["arch_kwargs"]["n_blocks_per_stage"] = [1, 1]
        own.edit(f"{tiny.PLANS}.json", **plans)
        training = Training(own, tmp_path, CMEMS, settings=SURE)
        if works:
            assert math.isfinite(step(start(training))["loss"])
        else:
            with pytest.raises(NotImplementedError, match="ResidualUNet.*use nnUNetTrainerCMEMSNoFeature"):
                training.build()


def test_what_is_refused(project, regions, tmp_path):
    for trainer in (CMEMS, "nnUNetTrainerSparseSynthetic", "nnUNetTrainerMeanTeacherSynthetic"):
        with pytest.raises(NotImplementedError, match=f"{trainer}.*region-based labels; use nnUNetTrainerMeanTeacher"):
            Training(regions, tmp_path / "regions", trainer).build()
    with pytest.raises(InputError, match=f"'teacher'; {CMEMS} predicts with one of 'student', 'peer', 'better'"):
        Training(project, tmp_path / "teacher", CMEMS, settings={"inference_network": "teacher"}).build()
    settings = {"synthetic": {"exemplars": "scan_05"}}
    with pytest.raises(InputError, match="'scan_05' is no labelled training scan"):
        Training(project, tmp_path / "exemplar", CMEMS, settings=settings).build().get_dataloaders()
    trainer = Training(project, tmp_path / "unlabelled", CMEMS).build()
    trainer.scans.unlabelled.clear()
    with pytest.raises(InputError, match="needs unlabelled scans, and there are none"):
        trainer.get_dataloaders()


# ---- the network for prediction, and checkpoints


def test_the_better_network_predicts_and_the_student_while_nothing_is_known(started):
    assert started.inference_network is started.network
    for student, peer, expected in ((0.5, 0.6, "peer"), (0.6, 0.5, "student"), (math.nan, math.nan, "student")):
        started.smoothed_dice = {"student": student, "peer": peer}
        assert started.inference_name == expected


def test_pseudo_dice_by_hand():
    counts = {"tp_hard": np.array([3, 0]), "fp_hard": np.array([1, 0]), "fn_hard": np.array([1, 0])}
    assert mean_pseudo_dice([counts, counts]) == 0.75
    assert math.isnan(mean_pseudo_dice([{name: 0 * value for name, value in counts.items()}]))
    assert smoothed(0.5, 1.0) == pytest.approx(0.55)
    assert smoothed(math.nan, 0.5) == smoothed(0.5, math.nan) == 0.5


def test_interrupted_and_continued_equals_uninterrupted_bit_for_bit(training, project, tmp_path, monkeypatch):
    training.here()
    other = Training(project, tmp_path / "other", CMEMS, settings=SURE)
    original = nnUNetTrainerCMEMS.train_step

    def interrupted(trainer, batch):
        if trainer.iteration == 7:
            raise KeyboardInterrupt
        return original(trainer, batch)

    monkeypatch.setattr(nnUNetTrainerCMEMS, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.here()
    monkeypatch.setattr(nnUNetTrainerCMEMS, "train_step", original)
    other.here(continue_training=True)
    assert tiny.differences(tiny.load(training.final), tiny.load(other.final)) == []
    log = "gmabs_log.csv"
    assert (training.output / log).read_bytes() == (other.output / log).read_bytes()
