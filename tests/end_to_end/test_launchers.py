"""Two processes of one training: started by nnU-Net and by torchrun, killed and resumed, and what is refused."""

import functools
import json
import random
import sys
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from processes import in_processes
from shared_training import BOTH, GMABS, ROUNDS, SURE, trained
from tiny import SPARSE, Training

from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.errors import InputError

pytestmark = pytest.mark.slow
ALL_OF_IT = tiny.merge(tiny.merge(tiny.MEAN_TEACHER_SETTINGS, ROUNDS), SURE)


# ---- resumed


@pytest.fixture(scope="module")
def uninterrupted(of_size, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    one = Training(of_size(4), folder, BOTH, settings=ALL_OF_IT)
    in_processes(2, folder, trained, one)
    return tiny.load(one.final)


def stopped_in_an_epoch(training):
    return trained(training, stop=7)


def stopped_in_a_round(training):
    """Both processes end when they have labelled two scans of round 2."""
    written, write = [], pseudo_labels.write_pseudo_labels

    def watched(folder, number, *more):
        if number == 2:
            if len(written) == 2:
                raise KeyboardInterrupt
            written.append(number)
        write(folder, number, *more)

    with mock.patch.object(pseudo_labels, "write_pseudo_labels", watched):
        return trained(training)


@pytest.mark.parametrize("stopped", [stopped_in_an_epoch, stopped_in_a_round])
def test_stopped_and_continued_equals_uninterrupted_bit_for_bit(stopped, uninterrupted, of_size, tmp_path):
    one = Training(of_size(4), tmp_path, BOTH, settings=ALL_OF_IT)
    assert in_processes(2, tmp_path, stopped, one) == [None, None]
    in_processes(2, tmp_path, continued, one)
    assert tiny.differences(tiny.load(one.final), uninterrupted) == []


def numbers_for_data(training):
    """What the generators give when the data loaders are built."""
    trainer, drawn = training.build(), []

    def draw():
        drawn.extend([random.random(), float(np.random.random()), float(torch.rand(()))])
        return None, None

    with mock.patch.dict("os.environ", training.environment()), mock.patch.object(trainer, "get_dataloaders", draw):
        trainer.on_train_start()
    return drawn


def test_the_processes_draw_numbers_of_their_own_the_first_one_those_of_a_training_alone(of_size, tmp_path):
    alone = numbers_for_data(Training(of_size(4), tmp_path / "one"))
    first, second = in_processes(2, tmp_path, numbers_for_data, Training(of_size(4), tmp_path / "two"))
    assert first == alone and not {*first} & {*second}


def test_a_checkpoint_has_the_random_states_of_both_processes(uninterrupted):
    first, second = uninterrupted["gmabs"]["ranks"]
    generators = ("random", "perturbations", "mixing", "mutual_generators")
    assert {*generators, "batches_drawn"} == first.keys() == second.keys()
    for name in generators:
        assert tiny.differences(first[name], second[name]) != []
    assert first["batches_drawn"] == second["batches_drawn"]


def continued(training):
    return trained(training, continue_training=True)


def test_a_training_of_two_processes_is_continued_by_one_and_by_two_again_with_a_warning(of_size, tmp_path):
    one = Training(of_size(4), tmp_path, SPARSE)
    assert in_processes(2, tmp_path, trained, one, None, 4) == [None, None]
    assert trained(one, stop=7, continue_training=True) is None
    assert "WARNING: the checkpoint was written by 2 process(es), now there are 1; the training goes on" in one.log()
    first, second = in_processes(2, tmp_path, continued, one)
    assert "the checkpoint was written by 1 process(es), now there are 2" in one.log()
    assert len(first["history"]) == 4 and tiny.differences(first["history"], second["history"]) == []
    states = tiny.load(one.final)["gmabs"]["ranks"]
    assert tiny.differences(states[0]["random"], states[1]["random"]) != []


# ---- the command


def torchrun(training, *options, expect=0):
    """What two processes of nnunet_gmabs.train printed."""
    arguments = ["--standalone", "--nproc_per_node", "2", "-m", "nnunet_gmabs.train", *training.arguments(*options)]
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    return tiny.wait(tiny.start(*command, environment=training.environment()), expect)


def test_torchrun_trains_validates_and_leaves_what_one_process_leaves(of_size, tmp_path):
    settings = tiny.merge(tiny.MEAN_TEACHER_SETTINGS, ROUNDS)
    one = Training(of_size(4), tmp_path, GMABS, settings=settings)
    printed = torchrun(one)
    assert printed.count("Epoch 3") == 1 and one.log().count("Epoch 3") == 1
    assert len(list(one.output.glob("training_log_*.txt"))) == 1
    rows = tiny.read_log(one)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3] and [row["round/scans"] for row in rows[:3]] == [7.0] * 3
    assert [path.name for path in (one.output / "pseudo_labels").iterdir()] == ["round_003"]
    assert {path.name for path in one.output.glob("checkpoint_*")} == {"checkpoint_final.pth", "checkpoint_best.pth"}
    summary = json.loads((one.output / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(list((one.output / "validation").glob("*.nii.gz"))) > 0
    assert json.loads((one.output.parent / "plans.json").read_text())["plans_name"] == tiny.PLANS


def by_nnunets_own_launcher(training):
    """What each process of nnUNetv2_train -num_gpus 2 does, but with the CPU and gloo for GPUs and NCCL."""
    from nnunetv2.run import run_training as module
    from torch import distributed

    on_cpu = functools.partial(module.get_trainer_from_args, device=torch.device("cpu"))
    nothing = {"setup_ddp": lambda *_: None, "cleanup_ddp": lambda: None, "get_trainer_from_args": on_cpu}
    with (
        mock.patch.dict("os.environ", training.environment()),
        mock.patch.multiple(module, **nothing),
        mock.patch.object(torch.cuda, "set_device"),
        tiny.cheap(),
    ):
        what = training.project.number, training.configuration, int(training.fold), training.trainer, training.plans
        module.run_ddp(distributed.get_rank(), *what, False, False, False, None, False, True, 2)


def test_nnunets_own_launcher_works_and_validates_with_the_best_checkpoint(of_size, tmp_path):
    one = Training(of_size(4), tmp_path)
    in_processes(2, tmp_path, by_nnunets_own_launcher, one)
    assert one.final.is_file() and (one.output / "validation" / "summary.json").is_file()


def device_on_another_machine(training):
    """What a trainer takes for its device when the launcher has chosen the sixth GPU."""
    from nnunetv2.run.run_training import get_trainer_from_args

    what = training.project.number, training.configuration, 0, training.trainer, training.plans
    with (
        mock.patch.dict("os.environ", training.environment()),
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "current_device", lambda: 5),
    ):
        return str(get_trainer_from_args(*what, device=torch.device("cuda")).device)


def test_the_device_is_the_one_that_the_launcher_has_chosen(of_size, tmp_path):
    one = Training(of_size(4), tmp_path, SPARSE)
    assert in_processes(2, tmp_path, device_on_another_machine, one) == ["cuda:5", "cuda:5"]


def test_the_launcher_chooses_by_the_rank_on_the_machine(monkeypatch):
    from nnunet_gmabs import train

    monkeypatch.setenv("RANK", "13")
    monkeypatch.setenv("LOCAL_RANK", "5")
    with (
        mock.patch.object(torch.cuda, "device_count", lambda: 8),
        mock.patch.object(torch.cuda, "set_device") as chosen,
        mock.patch.object(torch.distributed, "init_process_group") as joined,
    ):
        train.join("cuda")
    chosen.assert_called_once_with(5)
    assert joined.call_args.args == ("nccl",)


def refused(training):
    """The type and text of the error with which a trainer cannot be built."""
    try:
        training.build()
    except (InputError, NotImplementedError) as error:
        return type(error), str(error)


def test_what_cannot_be_shared_out_is_refused(of_size, tmp_path):
    [(kind, message), other] = in_processes(2, tmp_path, refused, Training(of_size(1), tmp_path / "one"))
    assert kind is InputError and other == (kind, message)
    assert message == "a batch of 1 cannot be shared out over 2 processes; use fewer, or raise batch_size in the plans"


def test_batch_normalisation_is_refused_by_name(of_size, tmp_path):
    own = of_size(4).copy(tmp_path)
    plans = json.loads((own.pre / f"{tiny.PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"] |= {
        "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d"
    }
    own.edit(f"{tiny.PLANS}.json", **plans)
    [(kind, message), _] = in_processes(2, tmp_path, refused, Training(own, tmp_path))
    assert kind is NotImplementedError and "does not train networks with batch normalisation in several" in message


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["-device", "cpu"], {}, "RANK is not set: start this with torchrun --nproc_per_node N"),
        (["-device", "cpu", "-num_gpus", "2"], {"RANK": "0"}, "-num_gpus 2: leave it out; torchrun's"),
        (["-device", "mps"], {"RANK": "0"}, "-device mps: several processes train on 'cuda' or 'cpu'"),
        (["-device", "cuda"], {"RANK": "0"}, "local rank 7, but torch sees"),
    ],
)
def test_wrong_arguments_are_named(options, variables, message, monkeypatch):
    from nnunet_gmabs import train

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    if variables:
        for name, value in {"LOCAL_RANK": "7", "WORLD_SIZE": "8", **variables}.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["train", "1", "3d_fullres", "0", "-tr", SPARSE, *options])
    with pytest.raises(InputError, match=message):
        train.main()


def test_stock_trainers_are_refused():
    from nnunet_gmabs import train

    with pytest.raises(InputError, match="-tr nnUNetTrainer: not a trainer of nnunet_gmabs; train it with"):
        train.check_trainer("nnUNetTrainer")
