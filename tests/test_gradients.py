"""How strongly each term pulls at the network."""

import math

import pytest
import torch

from nnunet_gmabs.learning.gradients import gradient_norms, gradient_ratios


def parameters():
    return [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor(3.0))]


def test_norms_by_hand_over_all_parameters():
    a, b = parameters()
    norms = gradient_norms({"both": 3 * a.sum() + 4 * b, "square": (a**2).sum()}, [a, b])
    assert norms["both"] == pytest.approx((9 + 9 + 16) ** 0.5)
    assert norms["square"] == pytest.approx((4 + 16) ** 0.5)


def test_parameters_that_a_term_does_not_use_count_as_0():
    a, b = parameters()
    assert gradient_norms({"b": 5 * b}, [a, b]) == {"b": 5.0}
    assert gradient_norms({"none": 5 * torch.ones((), requires_grad=True)}, [a, b]) == {"none": 0.0}


def test_a_term_without_graph_has_norm_0():
    assert gradient_norms({"constant": torch.tensor(3.0)}, parameters()) == {"constant": 0.0}


def test_the_scale_is_divided_out_again():
    a, b = parameters()
    term = {"term": 3 * a.sum() + 4 * b}
    assert gradient_norms(term, [a, b], scale=65536.0) == pytest.approx(gradient_norms(term, [a, b]))


def test_the_scale_saves_half_precision_from_underflow():
    weight = torch.nn.Parameter(torch.tensor(1.0))
    term = (weight.half() * 2**-12).float() * 2**-14  # on its way back the gradient is 2^-26 in half precision
    assert gradient_norms({"term": term}, [weight])["term"] == 0.0
    assert gradient_norms({"term": term}, [weight], scale=65536.0)["term"] == 2.0**-26


def test_graph_and_gradients_are_left_for_the_backward_pass():
    a, b = parameters()
    loss = (a**2).sum() * b
    gradient_norms({"loss": loss}, [a, b])
    assert a.grad is None and b.grad is None
    loss.backward()
    assert a.grad.tolist() == [6.0, 12.0] and b.grad.item() == 5.0


def test_ratios_by_hand():
    assert gradient_ratios({"supervised": 2.0, "a": 6.0, "b": 0.0}) == {"a": 3.0, "b": 0.0}


@pytest.mark.parametrize("reference", [0.0, math.inf, math.nan])
def test_there_is_no_ratio_to_a_norm_that_is_0_or_not_finite(reference):
    ratios = gradient_ratios({"supervised": reference, "a": 3.0})
    assert list(ratios) == ["a"] and math.isnan(ratios["a"])
