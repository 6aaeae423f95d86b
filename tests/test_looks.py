"""Looks at scans that are kept: shared by parts, killed and run again, the round is the one that one process asks."""

import json

import numpy as np
import pytest
import raw_data
from asked import make_raw
from test_asking import Fake

from nnunet_gmabs import cli
from nnunet_gmabs.active.select import STRATEGIES
from nnunet_gmabs.annotation.requests import existing_rounds, read_request
from nnunet_gmabs.commands import ask
from nnunet_gmabs.commands.looks import Look, Looks
from nnunet_gmabs.files import only_one

LOOKING = [name for name, strategy in STRATEGIES.items() if strategy.looks]


class Known(Fake):
    """With a checkpoint's hash, as Model has it; counts over all processes, and dies when it is told to."""

    def __init__(self, *box, weights="0"):
        super().__init__(*box)
        self.weights, self.dies_at = weights, None

    def made_from(self):
        return {"checkpoint": self.weights}

    def predict_probabilities(self, image, properties):
        if self.asked == self.dies_at:
            raise KeyboardInterrupt
        return super().predict_probabilities(image, properties)


@pytest.fixture
def models(monkeypatch):
    both = [Known(), Known((slice(2, 5), slice(3, 9), slice(5, 13)))]
    monkeypatch.setattr(ask, "load_models", lambda *_: both)
    return both


@pytest.fixture
def call(tmp_path, capsys):
    """Calls the command on one of several equal data sets; returns that, and what it printed."""
    raws = {}

    def command(*options, data="data", expect=0):
        folder = tmp_path / data / "Dataset001_A"
        if folder not in raws:
            raws[folder] = make_raw(folder.parent, scans=8)
        assert cli.main(["ask", "-d", str(folder), "--scans", "3", "--seed", "5", *options]) == expect
        printed = capsys.readouterr()
        return raws[folder], printed.err if expect else printed.out

    return command


def the_round(raw, number=0):
    """All of a round but its time."""
    content = json.loads((raw.folder / f"gmabs/requests/round_{number:03d}/request.json").read_text())
    proposals = sorted((raw.folder / f"gmabs/requests/round_{number:03d}/proposals").iterdir())
    return content | {"created": None}, {p.name: raw.read_labels(p)[0].tobytes() for p in proposals}


@pytest.mark.parametrize("strategy", LOOKING)
def test_the_last_part_asks_the_round_that_one_process_asks(call, models, strategy):
    whole, _ = call("--strategy", strategy, data="whole")
    for part in (2, 0):
        raw, said = call("--strategy", strategy, "-num_parts", "3", "-part_id", str(part))
        assert f"part {part} is done;" in said and "are left to other parts" in said
        assert existing_rounds(raw.folder) == []
    raw, said = call("--strategy", strategy, "-num_parts", "3", "-part_id", "1")
    assert "round 0: 3 scans, 9 planes" in said
    assert the_round(raw) == the_round(whole)


def test_each_scan_is_looked_at_once_whoever_does_it(call, models):
    call("-num_parts", "2", "-part_id", "0", "--strategy", "uncertainty")
    assert models[0].asked == 3, "of 8 scans one in two, and scan_00 is labelled"
    models[0].dies_at = 5
    with pytest.raises(KeyboardInterrupt):
        call("-num_parts", "2", "-part_id", "1", "--strategy", "uncertainty")
    models[0].dies_at = None
    _, said = call("--strategy", "uncertainty")
    assert "round 0: 3 scans" in said
    assert models[0].asked == 7 + 1, "and one that was chosen, and looked at by a part, for its planes"


def test_a_part_that_is_run_again_asks_no_second_round(call, models):
    for part in ("0", "1"):
        call("-num_parts", "2", "-part_id", part, "--strategy", "uncertainty")
    raw, said = call("-num_parts", "2", "-part_id", "1", "--strategy", "uncertainty")
    assert "round 0 was asked by these looks already; for another round leave out -num_parts" in said
    assert existing_rounds(raw.folder) == [0]
    asked = models[0].asked
    raw, said = call("--strategy", "uncertainty")
    assert "round 1: 3 scans" in said and models[0].asked == asked + 3
    first, second = ({scan.identifier for scan in read_request(raw.folder, n).scans} for n in (0, 1))
    assert not first & second


def test_a_part_that_was_killed_before_the_round_was_there_asks_it(call, models, monkeypatch):
    from nnunet_gmabs.annotation import rounds

    write_round = rounds.write_round

    def dies(*_):
        raise KeyboardInterrupt

    call("-num_parts", "2", "-part_id", "0")
    monkeypatch.setattr(rounds, "write_round", dies)
    with pytest.raises(KeyboardInterrupt):
        call("-num_parts", "2", "-part_id", "1")
    monkeypatch.setattr(rounds, "write_round", write_round)
    raw, said = call("-num_parts", "2", "-part_id", "1")
    assert "round 0: 3 scans" in said and existing_rounds(raw.folder) == [0]


def test_while_another_part_chooses_this_one_leaves_it_to_that(call, models):
    raw, _ = call("-num_parts", "2", "-part_id", "0")
    [folder] = (raw.folder / "gmabs" / "looks").iterdir()
    with only_one(folder / ".choosing.lock", "a test"):
        _, said = call("-num_parts", "2", "-part_id", "1")
    assert "part 1 is done; another part, which asks the round, is running already" in said
    assert existing_rounds(raw.folder) == []


def test_other_checkpoints_scores_and_images_are_looked_at_anew(call, models):
    raw, _ = call("--strategy", "uncertainty")
    strategy = STRATEGIES["uncertainty"]
    name = raw_data.name(3)
    assert Looks(raw, strategy, models[:1]).get(name, True) is None, "of both models, as the command was given them"
    looks = Looks(raw, strategy, models)
    assert looks.get(name, True).score == pytest.approx(3 / raw_data.scan_shape(3)[0])
    assert Looks(raw, STRATEGIES["disagreement"], models).get(name, True) is None
    assert Looks(raw, strategy, [Known(weights="1"), models[1]]).get(name, True) is None
    raw_data.write_scan(raw.folder, 3, scale=1.5)
    assert looks.get(name, True) is None and looks.get(raw_data.name(4), True) is not None


def test_what_was_kept_comes_back_exactly(tmp_path):
    raw = make_raw(tmp_path)
    looks = Looks(raw, STRATEGIES["uncertainty-diverse"], [Known()])
    features = np.random.default_rng(0).normal(size=64) / 3
    looks.put("scan_01", Look(0.1 + 0.2, features))
    back = looks.get("scan_01", True)
    assert back.score == 0.1 + 0.2
    np.testing.assert_array_equal(back.features, features)
    looks.put("scan_02", Look(None, features))
    assert looks.get("scan_02", True) is None and looks.get("scan_02", False).score is None
    (looks.folder / "scan_01.json").write_text('{"images": [')
    assert looks.get("scan_01", True) is None and looks.get("scan_03", False) is None


def test_strategies_that_do_not_look_have_no_parts(call, models):
    raw, said = call("--strategy", "random", "-num_parts", "2", "-part_id", "0", expect=2)
    assert "--strategy random chooses without looking at scans; leave out -num_parts" in said
    call("--strategy", "random")
    assert not (raw.folder / "gmabs" / "looks").exists()
    assert "-part_id 2: must be from 0 to 1" in call("-num_parts", "2", "-part_id", "2", expect=2)[1]
