import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_gmabs.report.scores import scores_of, write_scores
from nnunet_gmabs.report.statistics import paired_bootstrap

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "compare.py"


def reference_bootstrap(differences, resamples, seed):
    """The definition, drawn one by one."""
    rng = np.random.default_rng(seed)
    seeds, scans = differences.shape
    means = []
    for _ in range(resamples):
        s = rng.integers(seeds, size=seeds)
        n = rng.integers(scans, size=scans)
        means.append(np.mean([differences[i, j] for i in s for j in n]))
    return np.quantile(means, [0.05, 0.95])


def test_equal_differences_leave_no_doubt():
    result = paired_bootstrap(np.full((3, 20), 0.02))

    assert result.mean == pytest.approx(0.02)
    assert (result.low, result.high) == pytest.approx((0.02, 0.02))
    assert result.counts
    assert (result.seeds, result.scans, result.level) == (3, 20, 0.9)


def test_the_interval_is_that_of_the_definition():
    differences = np.random.default_rng(1).normal(0.01, 0.05, (3, 11)) + np.array([[-0.02], [0.0], [0.05]])

    result = paired_bootstrap(differences, resamples=20_000, seed=3)

    np.testing.assert_allclose((result.low, result.high), reference_bootstrap(differences, 5_000, 4), atol=0.003)
    assert result.mean == pytest.approx(differences.mean())


def test_differences_between_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    scans = rng.normal(0.03, 0.01, 20)
    agreeing, disagreeing = (scans + np.array([[-shift], [0.0], [shift]]) for shift in (0.0, 0.05))

    narrow, wide = paired_bootstrap(agreeing), paired_bootstrap(disagreeing)

    assert narrow.mean == pytest.approx(wide.mean)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert narrow.counts and not wide.counts


def test_one_seed_leaves_the_scans_as_only_source_of_chance():
    """For the mean of n values the interval is about +- 1.645 sd / sqrt(n)."""
    scans = np.random.default_rng(2).normal(0, 1, 400)

    result = paired_bootstrap(scans)

    assert result.seeds == 1
    half = 1.645 * scans.std() / 20
    np.testing.assert_allclose([result.low, result.high], [scans.mean() - half, scans.mean() + half], atol=0.02)


def test_a_claim_counts_only_when_the_interval_excludes_zero():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.05, (3, 20))
    noise -= noise.mean()

    assert not paired_bootstrap(noise).counts
    assert paired_bootstrap(noise + 0.1).counts
    assert paired_bootstrap(noise - 0.1).counts


@pytest.mark.parametrize(
    ("shape", "gain", "verdict"),
    [
        ((2, 8), 1, "yes"),
        ((1, 8), 1, "one seed"),
        ((3, 7), 1, "few scans"),
        ((2, 8), 0, "no"),
        ((1, 1), 1, "few scans"),
    ],
)
def test_a_verdict_needs_eight_scans_and_says_when_it_is_of_one_seed(shape, gain, verdict):
    differences = gain + np.resize([0.01, -0.01], shape)
    result = paired_bootstrap(differences)
    assert result.verdict == verdict
    assert result.counts == (verdict in ("yes", "one seed"))


def test_the_same_seed_gives_the_same_interval():
    differences = np.random.default_rng(0).normal(size=(2, 9))

    assert paired_bootstrap(differences, seed=1) == paired_bootstrap(differences, seed=1)
    assert paired_bootstrap(differences, seed=1) != paired_bootstrap(differences, seed=2)


@pytest.mark.parametrize("differences", [[], [[]], [[0.1, np.nan]], [[0.1, np.inf]], np.zeros((2, 3, 4))])
def test_what_cannot_be_averaged_is_refused(differences):
    with pytest.raises(ValueError, match="differences"):
        paired_bootstrap(np.array(differences))


def test_the_script_compares_every_method_with_the_first(tmp_path):
    rng = np.random.default_rng(0)
    for name, gain in (("stock", 0.0), ("ours", 0.1), ("same", 0.0)):
        dice = {f"scan_{n}": {1: 0.5 + 0.01 * n + gain, 2: 0.6 + gain + 0.02 * rng.normal()} for n in range(9)}
        write_scores(tmp_path / f"{name}.csv", scores_of(dice, name))
    files = [str(tmp_path / f"{name}.csv") for name in ("stock", "ours", "same")]

    done = subprocess.run([sys.executable, SCRIPT, *files], capture_output=True, text=True, check=True)

    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[:4] for line in lines] == [
        [name, "-", "stock", label] for name in ("ours", "same") for label in ("1", "2", "mean")
    ]
    assert lines[0][4:] == ["+10.0", "+10.0", "+10.0", "1", "9", "one", "seed"]
    assert [line[-1] for line in lines] == ["seed", "seed", "seed", "no", "no", "no"]


def test_the_script_says_what_is_wrong_with_its_files(tmp_path):
    write_scores(tmp_path / "stock.csv", scores_of({"scan_1": {1: 0.5}}, "stock"))
    shutil.copy(tmp_path / "stock.csv", tmp_path / "ours.csv")  # which says that it is stock, too
    write_scores(tmp_path / "other.csv", scores_of({"scan_1": {1: 0.7}}, "other"))

    def errors(*names):
        files = [tmp_path / f"{name}.csv" for name in names]
        done = subprocess.run([sys.executable, SCRIPT, *files], capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    assert "only one method" in errors("stock")
    assert "stock, seed 0: two values for class 1 of scan_1; give two methods two names" in errors(
        "stock", "ours", "other"
    )


def test_a_class_that_no_scan_has_is_no_reason_to_fail(tmp_path):
    for name, dice in (("stock", 0.5), ("ours", 0.6)):
        scores = {f"scan_{n}": {1: dice, 2: float("nan")} for n in range(8)}
        write_scores(tmp_path / f"{name}.csv", scores_of(scores, name))
    files = [tmp_path / f"{name}.csv" for name in ("stock", "ours")]
    done = subprocess.run([sys.executable, SCRIPT, *files], capture_output=True, text=True, check=True)
    assert [line.split()[3:] for line in done.stdout.splitlines()[2:]] == [
        ["1", "+10.0", "+10.0", "+10.0", "1", "8", "one", "seed"],
        ["2", "-", "-", "-", "1", "0", "-"],
        ["mean", "+10.0", "+10.0", "+10.0", "1", "8", "one", "seed"],
    ]
