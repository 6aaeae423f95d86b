"""Single training steps of the mean teacher on real batches: teacher, terms, seeds."""

import math

import pytest
import tiny
import torch
from tiny import Training

pytestmark = pytest.mark.slow


@pytest.fixture
def started(project, tmp_path):
    """A trainer with its data, before its first step."""
    trainer = Training(project, tmp_path).build()
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    return trainer


def step(trainer):
    return trainer.train_step(next(trainer.dataloader_train))


def tensors(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_the_teacher_is_the_moving_average_of_the_student(started):
    assert tiny.differences(tensors(started.teacher_module), tensors(started.network)) == []
    reference = tensors(started.teacher_module)
    for t in range(4):
        before = tensors(started.network)
        step(started)
        student = tensors(started.network)
        assert tiny.differences(student, before) != []
        decay = min(1 - 1 / (t + 1), 0.99)
        reference = {name: decay * old + (1 - decay) * student[name] for name, old in reference.items()}
        for name, tensor in started.teacher_module.state_dict().items():
            torch.testing.assert_close(tensor, reference[name], rtol=1e-5, atol=1e-7)
    assert tiny.differences(tensors(started.teacher_module), student) != []


def test_the_teacher_gets_no_gradient_and_stays_in_evaluation_mode(started):
    step(started)
    assert not any(p.requires_grad or p.grad is not None for p in started.teacher_module.parameters())
    assert not started.teacher_module.training and started.network.training
    known = {id(p) for group in started.optimizer.param_groups for p in group["params"]}
    assert known == {id(p) for p in started.network.parameters()}


def learned_from(trainer, batch):
    """Gradient of the supervised term by the first output, for a target as train_step makes it."""
    output = [o.detach().requires_grad_() for o in trainer.network(batch["data"])]
    trainer.loss(output, trainer.unknown_where_unlabelled(batch)).backward()
    return output[0].grad


def test_unlabelled_samples_give_no_supervised_loss_and_their_padding_takes_no_weight_from_what_is_drawn(started):
    batch = next(started.dataloader_train)
    assert batch["labelled"].tolist() == [True, False]
    ignore_label = started.label_manager.ignore_label
    assert (batch["target"][0][1] == 0).any(), "padding is background in the loader's target"
    gradient = learned_from(started, batch)
    assert gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0
    more = batch | {"target": [t.clone() for t in batch["target"]]}
    for target in more["target"]:
        target[1] = 0
    assert torch.equal(learned_from(started, more), gradient)
    none = batch | {
        "target": [torch.where(batch["labelled"].view(-1, 1, 1, 1, 1), t, ignore_label) for t in batch["target"]]
    }
    assert torch.equal(learned_from(started, none), gradient)


def test_nothing_of_unlabelled_samples_counts_as_labelled_in_the_log(started):
    batch = next(started.dataloader_train)
    share = (started.unknown_where_unlabelled(batch)[0] != started.label_manager.ignore_label).float().mean()
    started.train_step(batch)
    assert started.epoch_means.take()["share/labelled_voxels"] == pytest.approx(float(share))


def test_so_it_is_with_regions(regions, tmp_path):
    trainer = Training(regions, tmp_path).build()
    batch = next(trainer.get_dataloaders()[0])
    made = trainer.unknown_where_unlabelled(batch)
    for before, after in zip(batch["target"], made, strict=True):
        assert after.shape == before.shape and after.dtype == before.dtype
        assert torch.equal(after[0], before[0]) and after[1, -1].all()
    assert learned_from(trainer, batch)[1].abs().sum() == 0


def test_labelled_samples_give_no_consistency(started):
    batch = next(started.dataloader_train)
    image = batch["data"].requires_grad_()
    started.loss_terms(started.network(image), batch)["consistency"].backward()
    assert image.grad[0].abs().sum() == 0
    assert image.grad[1].abs().sum() > 0


def test_the_gradient_ratio_is_that_of_the_weighted_terms(started):
    batch = next(started.dataloader_train)
    state = started.perturbations.get_state()
    started.supervised.class_balance = started.config.supervision.class_balance  # as at the start of a training
    seen = batch | {"target": started.unknown_where_unlabelled(batch)}
    terms = started.loss_terms(started.network(batch["data"]), seen)
    norms = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(started.network.parameters()), retain_graph=True, allow_unused=True)
        norms[name] = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients if g is not None))
    started.perturbations.set_state(state)
    started.epoch_means.take()
    started.train_step(batch)
    weights = {"consistency": 0.5 * math.exp(-5)}  # at the start of the ramp
    expected = weights["consistency"] * norms["consistency"] / norms["supervised"]
    assert started.epoch_means.take()["gradient_ratio/consistency"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_class_balance_fades_in_the_first_half_of_a_training_and_is_not_in_validation(project, tmp_path):
    trainer = Training(project, tmp_path, settings={"supervision": {"class_balance": 0.8}}).build()
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    steps = trainer.num_epochs * trainer.num_iterations_per_epoch
    for iteration in (0, steps // 4, steps // 2, steps - 1):
        trainer.iteration = iteration
        step(trainer)
        expected = 0.8 * max(0, 1 - 2 * iteration / steps)
        assert trainer.supervised.class_balance == pytest.approx(expected)
    trainer.iteration = 0
    step(trainer)
    trainer.on_validation_epoch_start()
    assert trainer.supervised.class_balance == 0.0


def without_unlabelled(batch):
    return batch | {"labelled": torch.ones_like(batch["labelled"])}


def test_batches_without_an_unlabelled_sample_do_not_thin_out_the_log_of_the_consistency(started):
    batch = next(started.dataloader_train)
    started.train_step(without_unlabelled(batch))  # the first of an epoch: gradients are measured
    log = started.epoch_means.take()
    assert all(math.isnan(log[f"{kind}/consistency"]) for kind in ("loss", "gradient_ratio"))
    started.train_step(batch)
    alone = started.epoch_means._sums["loss/consistency"]
    started.train_step(without_unlabelled(batch))
    log = started.epoch_means.take()
    assert log["loss/consistency"] == alone > 0
    assert log["loss/supervised"] > 0 and log["weight/consistency"] > 0


def test_without_an_unlabelled_sample_the_consistency_is_0_in_the_graph(started):
    batch = without_unlabelled(next(started.dataloader_train))
    term = started.loss_terms(started.network(batch["data"]), batch)["consistency"]
    gradients = torch.autograd.grad(term, list(started.network.parameters()), allow_unused=True)
    assert term.item() == 0 and any(g is not None for g in gradients)
    assert not any(g.any() for g in gradients if g is not None)


def test_the_average_pseudo_dice_has_the_precision_that_a_checkpoint_keeps(started):
    with torch.no_grad():
        started.on_validation_epoch_end([started.validation_step(next(started.dataloader_val))])
    assert type(started.logger.get_value("ema_fg_dice", -1)) is float


@pytest.mark.parametrize("name", ["supervised", "consistency"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_not_finite_is_named_before_it_changes_the_network(name, value, started, monkeypatch):
    step(started)
    original = started.loss_terms

    def broken(*args):
        terms = original(*args)
        return terms | {name: terms[name] * value}

    monkeypatch.setattr(started, "loss_terms", broken)
    before = tensors(started.network)
    with pytest.raises(FloatingPointError, match=f"the term '{name}' is (nan|inf) in epoch 0, iteration 1"):
        step(started)
    assert tiny.differences(tensors(started.network), before) == []


def test_mixed_precision_takes_the_same_way_within_its_rounding(project, tmp_path, monkeypatch):
    """What CUDA does, with bfloat16 on the CPU: autocast, scaled gradients, a scaler in the checkpoint."""
    logs = {}
    for name in ("full", "mixed"):
        training = Training(project, tmp_path / name)
        trainer = training.build()
        if name == "mixed":
            monkeypatch.setattr(trainer, "autocast", lambda: torch.autocast("cpu", torch.bfloat16))
            trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
        trainer.network.train()
        for _ in range(3):
            step(trainer)
        logs[name] = trainer.epoch_means.take()
        if name == "mixed":
            trainer.save_checkpoint(str(training.final))
            assert tiny.load(training.final)["grad_scaler_state"]["scale"] == 1024.0
            assert all(t.dtype == torch.float32 for t in tensors(trainer.teacher_module).values())
    for name in ("loss/supervised", "loss/consistency", "gradient_ratio/consistency"):
        assert logs["mixed"][name] == pytest.approx(logs["full"][name], rel=0.1), name


def test_mixed_precision_skips_a_step_that_is_not_finite(started, monkeypatch):
    started.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    original = started.loss_terms
    monkeypatch.setattr(started, "loss_terms", lambda *a: {k: v * math.inf for k, v in original(*a).items()})
    before = tensors(started.network)
    step(started)
    assert tiny.differences(tensors(started.network), before) == []
    assert started.grad_scaler.get_scale() == 512.0


def test_mixed_precision_does_not_skip_steps_until_its_scale_is_no_number_any_more(started, monkeypatch):
    started.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    original = started.loss_terms
    monkeypatch.setattr(started, "loss_terms", lambda *a: {k: v * math.nan for k, v in original(*a).items()})
    before = tensors(started.network)
    with pytest.raises(FloatingPointError, match="is nan in epoch 0, iteration 41; lower initial_lr"):
        for _ in range(200):
            step(started)
    assert tiny.differences(tensors(started.network), before) == []
    monkeypatch.undo()
    step(started)
    assert all(torch.isfinite(t).all() for t in tensors(started.network).values())


def test_of_the_threads_of_nested_regions_the_outer_ones_count(project, tmp_path):
    before = torch.get_num_threads()
    try:
        Training(project, tmp_path, variables={"OMP_NUM_THREADS": "2,1"}).build()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_equal_seeds_give_equal_trainings_and_another_seed_another(project, tmp_path):
    runs = [Training(project, tmp_path / str(i), settings={"seed": seed}) for i, seed in enumerate((0, 0, 1))]
    for run in runs:
        torch.rand(5)  # what happened before in the process does not matter
        run.here()
    first, again, other = (tiny.load(run.final) for run in runs)
    assert tiny.differences(first, again) == []
    assert "/gmabs/networks/teacher/decoder.seg_layers.0.weight" in tiny.differences(first, other)


# batchgenerators' own thread may find its queue closed while it stops
stopping_workers = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def batches_of_workers(project, folder, seed, workers, number):
    """So many batches by data workers, and the first weights."""
    training = Training(project, folder, settings={"seed": seed}, workers=workers)
    trainer = training.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", str(workers))
        augmenters = trainer.get_dataloaders()
    batches = [next(augmenters[0]) for _ in range(number)]
    for augmenter in augmenters:
        augmenter._finish()
    return [{"data": b["data"].clone(), "keys": list(b["keys"])} for b in batches], tensors(trainer.network)


@stopping_workers
def test_the_seed_reaches_a_data_worker(project, tmp_path):
    first, again, other = (
        batches_of_workers(project, tmp_path / str(i), seed, 1, 4) for i, seed in enumerate((0, 0, 1))
    )
    assert tiny.differences(first, again) == []
    assert all(d != [] for d in map(tiny.differences, first, other))
    assert not torch.equal(first[0][0]["data"], other[0][0]["data"])


@stopping_workers
def test_two_data_workers_draw_different_batches(project, tmp_path):
    batches, _ = batches_of_workers(project, tmp_path, 0, 2, 8)
    images = [batch["data"] for batch in batches]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def mixing(project, folder):
    return Training(project, folder, settings={"consistency": {"mix_side": 0.6}})


@pytest.mark.parametrize("data", ["project", "regions"])
def test_an_unlabelled_sample_is_mixed_with_a_labelled_one_in_image_and_targets(data, request, tmp_path):
    trainer = mixing(request.getfixturevalue(data), tmp_path).build()
    batch = next(trainer.get_dataloaders()[0])
    batch["target"] = trainer.unknown_where_unlabelled(batch)
    image, targets = batch["data"].clone(), [t.clone() for t in batch["target"]]
    mixed = trainer.mixed(batch)
    assert torch.equal(batch["data"], image) and torch.equal(mixed["unmixed"], image), "the batch is not changed"
    labelled, unlabelled = mixed["own"]
    assert labelled.all() and 0 < unlabelled.float().mean() < 1
    assert torch.equal(mixed["data"][0], image[0])
    assert torch.equal(mixed["data"][1], torch.where(unlabelled, image[1], image[0]))
    for before, after in zip(targets, mixed["target"], strict=True):
        step = [n // m for n, m in zip(image.shape[2:], before.shape[2:], strict=True)]
        own = unlabelled[:, :: step[0], :: step[1], :: step[2]]
        assert torch.equal(after[0], before[0]) and after.dtype == before.dtype
        assert torch.equal(after[1], torch.where(own, before[1], before[0]))
    ignore_label = trainer.label_manager.ignore_label
    pseudo = torch.zeros_like(image[:, :1])
    assert torch.equal(trainer.mixed(batch | {"pseudo": pseudo})["pseudo"][0], pseudo[0])
    made = trainer.mixed(batch | {"pseudo": pseudo})
    assert torch.equal(made["pseudo"] == ignore_label, ~made["own"])


def test_the_teacher_sees_the_unlabelled_sample_as_it_is_and_the_student_the_mixed_one(project, tmp_path, monkeypatch):
    trainer = mixing(project, tmp_path).build()
    trainer.iteration = trainer.schedule_epochs * trainer.num_iterations_per_epoch - 1
    batch = next(trainer.get_dataloaders()[0])
    seen = {}
    monkeypatch.setattr(trainer, "teacher_views", lambda image: seen.update(image=image) or views(image))
    views = type(trainer).teacher_views.__get__(trainer)
    forward = trainer.network.forward
    monkeypatch.setattr(trainer.network, "forward", lambda image: seen.update(student=image) or forward(image))
    trainer.train_step(batch)
    assert torch.equal(seen["image"], batch["data"][1:])
    assert torch.equal(seen["student"][0], batch["data"][0]) and not torch.equal(seen["student"][1], batch["data"][1])


def test_without_a_labelled_or_an_unlabelled_sample_nothing_is_mixed(project, tmp_path):
    trainer = mixing(project, tmp_path).build()
    batch = next(trainer.get_dataloaders()[0])
    for labelled in ([True, True], [False, False]):
        alike = batch | {"labelled": torch.tensor(labelled)}
        assert trainer.mixed(alike) is alike
