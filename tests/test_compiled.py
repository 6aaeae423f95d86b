"""Compiled networks whose gradients are asked for term by term in some steps, and at once in others."""

import pytest
import torch
from torch import nn
from torch._functorch import config

from nnunet_gmabs.learning.gradients import gradient_norms
from nnunet_gmabs.trainers.compiled import keep_saved_for_backward


@pytest.fixture
def torchs_own():
    """Torch's default, and no code compiled before."""
    torch._dynamo.reset()
    with config.patch(donated_buffer=True):  # monkeypatch would remove the setting in the end
        yield
    torch._dynamo.reset()


def test_norms_are_there_where_the_first_step_of_the_compiled_code_did_not_ask_for_them(torchs_own):
    keep_saved_for_backward()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(), nn.Linear(4, 2))
    compiled = torch.compile(network, backend="aot_eager")
    image = torch.randn(5, 3)
    compiled(image).square().mean().backward()
    terms, plain = ({"a": net(image).square().mean()} for net in (compiled, network))
    assert gradient_norms(terms, [*network.parameters()]) == pytest.approx(
        gradient_norms(plain, [*network.parameters()])
    )
    terms["a"].backward()
