"""Convolutions that are faster on a CPU: the same numbers, and never torch's slow ones."""

from copy import deepcopy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.profiler import profile

from nnunet_gmabs.trainers.on_cpu import make_faster_on_cpu


def network():
    torch.manual_seed(0)
    layers = {"conv_op": nn.Conv3d, "kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]]}
    norm = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    counts = {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1], "num_classes": 3}
    return PlainConvUNet(1, 3, [8, 16, 16], **layers, **norm, **counts, conv_bias=True, deep_supervision=True)


def step(network, data):
    """Outputs, and gradients by name."""
    network.zero_grad()
    outputs = network(data)
    sum((o * torch.linspace(-1, 1, o.numel()).reshape(o.shape)).sum() for o in outputs).backward()
    return [o.detach() for o in outputs], {name: p.grad.clone() for name, p in network.named_parameters()}


def slow_convolutions(network, data):
    """How many torch runs in a step."""
    with profile() as profiler:
        step(network, data)
    return sum(event.count for event in profiler.key_averages() if event.key == "aten::slow_conv3d")


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_outputs_and_gradients_are_those_of_the_network_as_it_was(samples):
    plain, faster = network(), network()
    make_faster_on_cpu(faster)
    data = torch.randn(samples, 1, 8, 16, 12)
    (outputs, gradients), (theirs, their_gradients) = step(plain, data), step(faster, data)
    for ours, other in zip(outputs, theirs, strict=True):
        assert ours.shape == other.shape
        torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(their_gradients[name], gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("planes", [5, 6, 8, 9, 13])
@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 0, 1), (3, 1, 2, 2), (4, 3, 1, 1)])
def test_halves_of_any_kernel_stride_padding_and_dilation(planes, shape):
    kernel, stride, padding, dilation = shape
    plain = nn.Conv3d(2, 3, (kernel, 3, 1), (stride, 2, 1), (padding, 1, 0), (dilation, 1, 1))
    faster = deepcopy(plain)
    make_faster_on_cpu(faster)
    data = torch.randn(1, 2, planes, 7, 6)
    torch.testing.assert_close(faster(data), plain(data), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN there is one kind of convolution")
def test_a_lone_sample_does_not_take_the_slow_convolution():
    plain, faster = network(), network()
    make_faster_on_cpu(faster)
    data = torch.randn(1, 1, 8, 16, 12)
    convolutions = [m for m in plain.modules() if isinstance(m, nn.Conv3d)]
    of_one_voxel = [m for m in convolutions if max(m.kernel_size) == 1]  # the heads: fast as they are
    assert slow_convolutions(plain, data) == len(convolutions) == 7
    assert slow_convolutions(faster, data) == len(of_one_voxel) == 2


@pytest.mark.parametrize("other", [{"padding": "same"}, {"padding": 1, "padding_mode": "replicate"}])
def test_other_padding_stays_as_it_is(other):
    plain = nn.Conv3d(2, 3, 3, **other)
    faster = deepcopy(plain)
    make_faster_on_cpu(faster)
    data = torch.randn(1, 2, 5, 7, 6)
    torch.testing.assert_close(faster(data), plain(data), rtol=1e-5, atol=1e-5)


def test_weights_keep_names_and_values_and_copies_stay_fast():
    plain, faster = network(), network()
    make_faster_on_cpu(faster)
    state = plain.state_dict()
    assert list(faster.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in faster.state_dict().items())
    kinds = [type(m).__name__ for m in deepcopy(faster).modules()]
    assert kinds == [type(m).__name__ for m in faster.modules()] and "Conv3dInHalves" in kinds
    weights = [m.weight for m in deepcopy(faster).modules() if isinstance(m, nn.Conv3d) and max(m.kernel_size) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last_3d) for w in weights)
