"""The specialist asks the generalist: rounds in a training, what a kill leaves, what stock nnU-Net sees."""

import errno
import os
import re
import shutil
import signal

import pytest
import segment_anything
import tiny
import torch
from relabel_tools import BoxGeneralist
from test_generalist_sam import WIDTH, small_sam
from tiny import Training

from nnunet_gmabs.data import pseudo_labels
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist import from_plans, sam_weights

pytestmark = pytest.mark.slow
GMABS = "nnUNetTrainerGMABS"
# rounds at the end of epochs 1, 2 and 3 of 4
SETTINGS = tiny.MEAN_TEACHER_SETTINGS | {"relabel": {"first": 0.25, "first_iterations": 0, "every": 0.25, "until": 0.8}}


def training(project, folder, trainer=GMABS, **changes):
    return Training(project, folder, trainer, settings=tiny.merge(SETTINGS, changes))


@pytest.fixture(scope="module")
def uninterrupted(project, tmp_path_factory):
    one = training(project, tmp_path_factory.mktemp("gmabs"))
    one.here()
    return one


@pytest.fixture
def small_sam_file(tmp_path, monkeypatch):
    """Weights of a Sam that is small, and passes for a vit_b."""
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", small_sam)
    monkeypatch.setitem(sam_weights.WIDTHS, WIDTH, "vit_b")
    torch.manual_seed(0)
    torch.save(small_sam().state_dict(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def test_rounds_come_when_they_are_due_and_are_told(uninterrupted):
    log = uninterrupted.log()
    assert [f"relabelled, round {n}:" in log for n in (1, 2, 3, 4)] == [True, True, True, False]
    rows = tiny.read_log(uninterrupted)
    assert [row["round/scans"] for row in rows[:3]] == [7.0] * 3
    assert rows[0]["weight/noise_tolerant"] == 0 < rows[1]["weight/noise_tolerant"]
    assert rows[0]["loss/noise_tolerant"] == 0 < rows[1]["loss/noise_tolerant"]
    assert 0 <= rows[2]["round/changed"] <= 1


def test_only_the_newest_round_is_kept_with_all_training_scans(uninterrupted):
    folder = uninterrupted.output / "pseudo_labels"
    assert [path.name for path in folder.iterdir()] == ["round_003"]
    assert len(pseudo_labels.finished(folder, 3)) == 7
    assert len(list(uninterrupted.output.glob("prompts_round_*.png"))) <= 3


def test_expert_voxels_keep_the_experts_label(uninterrupted):
    from nnunet_gmabs.data.expert import decode, expert_file, read_expert

    folder = uninterrupted.output / "pseudo_labels"
    found = 0
    for identifier in pseudo_labels.finished(folder, 3):
        file = expert_file(uninterrupted.project.pre, "nnUNetPlans_3d_fullres", identifier)
        expert = decode(read_expert(file)[0][0])
        pseudo = pseudo_labels.newest_pseudo_labels(folder, identifier, expert.shape)[:]
        drawn = expert != 3
        assert (pseudo[drawn] == expert[drawn]).all()
        assert set(pseudo.ravel().tolist()) <= {0, 1, 2}
        found += drawn.sum()
    assert found > 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def patch(owner, name, moment):
    setattr(owner, name, moment(getattr(owner, name)))


def in_the_middle_of_a_round():
    from nnunet_gmabs.data import pseudo_labels as module

    def moment(original):
        def write(folder, number, identifier, *more):
            if number == 2 and len(module.finished(folder, 2)) == 3:
                die()
            original(folder, number, identifier, *more)

        return write

    patch(module, "write_pseudo_labels", moment)


def after_a_round_before_its_checkpoint():
    from nnunet_gmabs.trainers.gmabs import nnUNetTrainerGMABS

    patch(
        nnUNetTrainerGMABS,
        "save_latest",
        lambda original: (
            lambda self: (
                die() if self.round == 2 and self.round_finished and self.current_epoch == 2 else original(self)
            )
        ),
    )


def while_an_old_round_is_deleted():
    def moment(original):
        def rmtree(path, *more, **options):
            original(path, *more, **options)
            if "round_001" in str(path):
                die()

        return rmtree

    patch(shutil, "rmtree", moment)


@pytest.mark.parametrize(
    "moment", [in_the_middle_of_a_round, after_a_round_before_its_checkpoint, while_an_old_round_is_deleted]
)
def test_interrupted_and_continued_equals_uninterrupted(moment, uninterrupted, project, tmp_path):
    one = training(project, tmp_path)
    assert one.in_child(moment) == -signal.SIGKILL
    assert not one.final.exists()
    one.here(continue_training=True)
    assert tiny.differences(tiny.load(one.final), tiny.load(uninterrupted.final)) == []
    for identifier in pseudo_labels.finished(one.output / "pseudo_labels", 3):
        paths = [t.output / "pseudo_labels" / "round_003" / f"{identifier}.b2nd" for t in (one, uninterrupted)]
        a, b = (torch.from_numpy(pseudo_labels.read_pseudo_labels(path)[:]) for path in paths)
        assert torch.equal(a, b)


def test_a_new_run_does_not_learn_from_an_older_ones_labels(project, tmp_path):
    one = training(project, tmp_path, num_epochs=1)
    pseudo_labels.round_folder(one.output / "pseudo_labels", 7).mkdir(parents=True)
    pseudo_labels.complete_round(one.output / "pseudo_labels", 7)
    one.here()
    assert pseudo_labels.newest_round(one.output / "pseudo_labels") is None


@pytest.mark.parametrize("trainer", ["NoGeneralist", "NoDenoise", "NoClip"])
def test_ablations_train(trainer, project, tmp_path):
    one = training(project, tmp_path, GMABS + trainer, num_epochs=2)
    one.here()
    assert one.final.is_file()
    assert ("share/doubtful" in tiny.read_log(one)[1]) == (trainer != "NoDenoise")


def test_a_generalist_that_cannot_be_used_stops_the_training_at_its_start(project, tmp_path):
    one = training(project, tmp_path, generalist={"checkpoint": "/not/there.safetensors"})
    with pytest.raises(InputError, match="/not/there.safetensors"):
        one.build()


@pytest.mark.parametrize("prob", [0.2, 0.3333])
def test_a_probability_that_is_always_reached_stops_the_training_at_its_start(prob, project, tmp_path):
    one = training(project, tmp_path, noise_tolerant={"reachable_prob": prob})
    with pytest.raises(InputError, match=f"noise_tolerant.reachable_prob is {prob}; with 3 classes .* 1/3 and 1"):
        one.build()


def test_a_training_too_short_for_a_round_says_so_at_its_start(uninterrupted, project, tmp_path):
    one = training(project, tmp_path, relabel={"first": 0.25, "first_iterations": 10})  # of 12; the last is after 9
    one.here()
    log = one.log()
    assert "WARNING: no round of relabelling will be due" in log and "relabel.first_iterations (10)" in log
    assert log.index("WARNING: no round") < log.index("Epoch 0")
    assert "relabelled" not in log and "WARNING: no round" not in uninterrupted.log()


def test_a_full_disk_in_a_round_leaves_the_labels_before_and_the_next_round_works(project, tmp_path, monkeypatch):
    write = pseudo_labels.write_pseudo_labels

    def full(folder, number, identifier, *more):
        if number == 2 and len(pseudo_labels.finished(folder, 2)) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, number, identifier, *more)

    monkeypatch.setattr(pseudo_labels, "write_pseudo_labels", full)
    monkeypatch.setattr(from_plans, "load_generalist", lambda *_: BoxGeneralist())
    one = training(project, tmp_path)
    one.here()
    log = one.log()
    assert "WARNING: round 2 of relabelling failed ([Errno 28] No space left on device)" in log
    assert [f"relabelled, round {n}:" in log for n in (1, 2, 3)] == [True, False, True]
    rows = tiny.read_log(one)
    assert rows[1]["loss/noise_tolerant"] > 0 and rows[2]["loss/noise_tolerant"] > 0
    assert [path.name for path in (one.output / "pseudo_labels").iterdir()] == ["round_003"]


def test_a_training_asks_segment_anything_and_encodes_each_slice_once(project, small_sam_file, tmp_path):
    # from the start, and fewer scans: a network so young has prompts on every slice
    few = {"relabel": SETTINGS["relabel"] | {"first": 0.2, "every": 0.5, "max_unlabelled": 1}}
    sam = {"generalist": {"name": "sam", "checkpoint": str(small_sam_file)}}
    own = project.copy(tmp_path)
    one = training(own, tmp_path, **few, **sam)
    one.here()
    rounds = [line for line in one.log().splitlines() if "relabelled, round" in line]
    encoded = [int(float(re.search(r" encoded (\d[\d.e+]*)", line)[1])) for line in rounds]
    slices = [int(float(re.search(r" slices (\d[\d.e+]*)", line)[1])) for line in rounds]
    kept = list((own.pre / "gmabs_embeddings").rglob("*.emb"))
    assert len(rounds) == 2 and one.final.is_file()
    tried = 3  # before the first round, to tell what it will cost
    assert "the first round of relabelling encodes up to" in one.log()
    assert 0 < encoded[0] == slices[0] - tried and tried + sum(encoded) == len(kept) < sum(slices)


def test_a_training_that_would_encode_for_hours_on_a_cpu_does_not_begin(project, small_sam_file, tmp_path):
    sam = {"generalist": {"name": "sam", "checkpoint": str(small_sam_file), "accept_hours": 0.0}}
    one = training(project.copy(tmp_path), tmp_path, GMABS + "Active", active={"expert": "person"}, **sam)
    older = [one.output / "expert" / "scan_03.nii.gz", one.output / "pseudo_labels" / "round_001" / "scan_03.b2nd"]
    for path in older:
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(InputError, match="on this CPU"):
        one.here()
    assert all(path.exists() for path in older) and not (one.output / "gmabs.json").exists()


def test_with_a_peer_both_networks_learn_all_terms(project, tmp_path):
    mutual = {"confidence": 0.0, "ramp_start": 0.0}
    mixed = {"mix_side": 0.6, "ramp_start": 0.0}
    one = training(project, tmp_path, GMABS + "Mutual", num_epochs=2, mutual=mutual, consistency=mixed)
    one.here()
    last = tiny.read_log(one)[1]
    terms = ("supervised", "consistency", "noise_tolerant", "mutual_image", "mutual_feature")
    assert all(last[f"loss/{name}{whose}"] > 0 for name in terms for whose in ("", "_peer"))
    networks = tiny.load(one.final)["gmabs"]["networks"]
    assert networks.keys() == {"student", "teacher", "peer"}
    assert len(tiny.differences(networks["student"], networks["peer"])) > 0


def test_synthetic_samples_come_beside_those_with_pseudo_labels(project, tmp_path):
    one = training(project, tmp_path, GMABS + "Synthetic", synthetic={"exemplars": "scan_00 scan_01 scan_02"})
    one.here()
    log = one.log()
    assert "objects of synthetic samples are cut out of scan_00, scan_01, scan_02" in log
    assert (one.output / "synthetic_samples.png").is_file() and tiny.read_log(one)[2]["loss/noise_tolerant"] > 0
    trainer = one.build()
    loader = trainer.get_dataloaders()[0]
    known = {True: [], False: []}  # whether anything is, by whether the sample is synthetic
    for _ in range(8):
        batch = next(loader)
        for name, labelled, pseudo in zip(batch["keys"], batch["labelled"], batch["pseudo"], strict=True):
            assert labelled or not name.startswith("synthetic/")
            known[name.startswith("synthetic/")].append(bool((pseudo != 3).any()))
    assert known[True] and not any(known[True]) and any(known[False])
