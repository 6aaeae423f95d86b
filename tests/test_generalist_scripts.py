"""The script that measures generalists, and the one that trains the embedded one."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_gmabs.generalist.embedded_network import load_network
from nnunet_gmabs.generalist.images import ScanImages

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    return script("benchmark_generalist")


@pytest.fixture(scope="module")
def truth():
    x, y, z = np.ogrid[:20, :24, :28]
    inside = ((x - 9) / 6) ** 2 + ((y - 11) / 8) ** 2 + ((z - 14) / 9) ** 2 <= 1
    return np.where(inside, np.where(z > 14, 2, 1), 0)


@pytest.mark.parametrize("level", [0.65, 0.78, 0.9])
def test_a_made_specialist_has_the_dice_it_should_have(benchmark, truth, level):
    probs = benchmark.specialist(truth, [1, 2], level, benchmark.errors_of_dataset(2, 0), 0)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)
    assert np.mean(benchmark.scores_of(probs.argmax(0), truth, [1, 2])) == pytest.approx(level, abs=0.01)


def test_the_errors_of_a_data_set_are_the_same_for_all_of_its_scans(benchmark):
    for (bias, tilt), (again, same) in zip(*(benchmark.errors_of_dataset(2, 3) for _ in range(2)), strict=True):
        assert bias == again and (tilt == same).all()


class Parrot:
    """Returns the prior."""

    wants_neighbours = False

    def encode_many(self, slices):
        return slices

    def segment_many(self, items):
        return [(np.stack([p.prior > 0.5 for p in prompts]), np.full(len(prompts), 0.5)) for _, prompts in items]


def test_a_generalist_that_repeats_the_specialist_changes_nothing(benchmark, truth):
    probs = benchmark.specialist(truth, [1, 2], 0.8, benchmark.errors_of_dataset(2, 0), 0)
    sure = np.where(probs.max(0) > 0.5, probs.argmax(0), 0)
    images = ScanImages(truth[None].astype(float), (1, 1, 1))
    fused, cost = benchmark.relabelled(Parrot(), images, probs, np.random.default_rng(0), True)
    np.testing.assert_array_equal(fused, sure)
    assert cost["agreement"] == 1 and cost["quality"] == 0.5


def test_the_summary_worked_by_hand(benchmark):
    common = {"data set": "D", "level": 0.7, "seconds": 1.0}
    rows = [
        common | {"scan": "a", "class": 1, "specialist": 0.6, "fused": 0.7},
        common | {"scan": "a", "class": 2, "specialist": 0.8, "fused": 0.8},
        common | {"scan": "b", "class": 1, "specialist": 0.7, "fused": 0.8},
        common | {"scan": "b", "class": 2, "specialist": 0.7, "fused": 0.7},
    ]
    table = benchmark.summary(rows)
    assert [row["class"] for row in table] == ["all", 1, 2]
    assert table[0]["gain"] == pytest.approx(0.05) and table[0]["low"] == pytest.approx(0.05)
    assert table[1]["specialist"] == pytest.approx(0.65) and table[1]["fused"] == pytest.approx(0.75)
    assert "| D | all | 2 | 70.0 | 75.0 | +5.0 (+5.0 to +5.0) | 1.00 |" in benchmark.markdown(table)


def test_a_training_stops_and_goes_on(tmp_path, monkeypatch):
    training = script("train_embedded_generalist")
    monkeypatch.setattr(training, "CAPACITY", 64)
    out = tmp_path / "w.safetensors"
    for steps in (2, 4):
        arguments = ["--steps", str(steps), "--save-every", "2", "--validation-samples", "32", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        training.main()
        assert json.loads(out.with_suffix(".json").read_text())["step"] == steps
    load_network(out)


def test_an_untrained_network_is_as_good_as_its_priors():
    training = script("train_embedded_generalist")
    report = training.validate(training.EmbeddedNetwork(), training.validation_pool(64, 1))
    assert report["with_prior"] == pytest.approx(report["prior"], abs=1e-4)
    assert report["worse_than_prior_by_2_points"] == 0
