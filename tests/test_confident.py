"""Confident learning gives cleanlab's answer."""

import warnings

import numpy as np
import pytest
import torch
from cleanlab.filter import find_label_issues as cleanlab_find_label_issues

from nnunet_gmabs.learning.confident import doubtful_voxels, find_label_issues, noise_counts


def random_case(seed, classes):
    """Probabilities (N, C) float64 and labels of a model and an annotator of random quality; None: one class only."""
    rng = np.random.default_rng((seed, classes))
    n = int(rng.choice([2, 3, 5, 10, 60, 500, 2000]))
    prior = rng.dirichlet(np.full(classes, rng.choice([0.2, 1, 5])))  # 0.2: skewed, with absent classes
    truth = rng.choice(classes, n, p=prior)
    logits = rng.normal(size=(n, classes)) * rng.choice([0.3, 1, 3])
    logits[np.arange(n), truth] += rng.choice([0, 1, 3, 6])
    probs = np.exp(logits)
    labels = np.where(rng.random(n) < rng.choice([0, 0.1, 0.4]), rng.integers(0, classes, n), truth)
    return (probs / probs.sum(1, keepdims=True), labels) if len(set(labels)) > 1 else None


def cleanlab(probs, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when a class has too few examples
        return cleanlab_find_label_issues(labels, probs, filter_by="both", n_jobs=1)


@pytest.mark.parametrize("classes", [2, 3, 5, 20])
def test_the_answer_is_cleanlabs(classes):
    compared = issues = 0
    for seed in range(40):
        if case := random_case(seed, classes):
            expected = cleanlab(*case)
            found = find_label_issues(*case)
            assert found.dtype == torch.bool
            np.testing.assert_array_equal(found.numpy(), expected, err_msg=f"seed {seed}")
            compared, issues = compared + 1, issues + int(expected.sum())
    assert compared > 25 and issues > 500


@pytest.mark.parametrize("absent", [0, 1, 2, 3])
def test_a_class_that_nobody_is_labelled_with_is_no_problem(absent):
    rng = np.random.default_rng(absent)
    probs = rng.dirichlet(np.ones(4), 500)
    labels = rng.choice([k for k in range(4) if k != absent], 500)
    found = find_label_issues(torch.from_numpy(probs), torch.from_numpy(labels).to(torch.int16))
    np.testing.assert_array_equal(found.numpy(), cleanlab(probs, labels))
    assert found.any()


def test_by_hand():
    # t_0 = 0.62, t_1 = 0.7: sample 4 is labelled 0 and confidently 1, nothing else is doubtful
    p1 = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.8, 0.7, 0.6])
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    assert find_label_issues(np.stack([1 - p1, p1], 1), labels).nonzero().flatten().tolist() == [4]


def test_counts_by_hand():
    # row 0: 6 of 8 samples are confident, scaled by 8/6: 5 1/3 and 2 2/3; row 2 has no sample
    joint = np.array([[4, 2, 0], [0, 3, 0], [0, 0, 0]])
    assert noise_counts(joint, [8, 3, 0]).tolist() == [[5, 3, 0], [0, 3, 0], [0, 0, 1]]


def test_one_class_or_one_sample_a_class_or_nothing_gives_no_issue():
    probs = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert not find_label_issues(probs, torch.ones(9, dtype=torch.long)).any()
    assert not find_label_issues(torch.tensor([[0.1, 0.9], [0.9, 0.1]]), torch.tensor([0, 1])).any()
    assert find_label_issues(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_ties_at_the_cut_share_their_fate():
    probs = torch.tensor([[0.9, 0.1]] * 50 + [[0.2, 0.8]] * 7 + [[0.1, 0.9]] * 30)
    labels = torch.tensor([0] * 57 + [1] * 30)
    assert find_label_issues(probs, labels)[50:57].unique().numel() == 1


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(5, 1)])
def test_shapes_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="must be"):
        find_label_issues(torch.rand(5, 2), labels)


def test_voxels_without_a_label_are_left_out():
    generator = torch.Generator().manual_seed(1)
    shape = (2, 1, 5, 6, 7)
    logits = torch.randn(2, 3, 5, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, shape, generator=generator).to(torch.int16)
    known = torch.rand(shape, generator=generator) < 0.4
    found = doubtful_voxels(logits.softmax(1), torch.where(known, labels, 200), known)
    assert found.shape == shape and not found[~known].any() and not found.requires_grad
    rows = logits.detach().softmax(1).movedim(1, -1)[known[:, 0]]
    assert torch.equal(found[known], find_label_issues(rows, labels[known]))
    assert found.any()
    assert not doubtful_voxels(logits.softmax(1), labels, torch.zeros_like(known)).any()
