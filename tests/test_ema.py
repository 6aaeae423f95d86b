"""The teacher is an exponential moving average of the student, every tensor averaged once."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nnunet_gmabs.learning.ema import teacher_decay, update_teacher


class Net(nn.Module):
    """Parameters, a floating and an integer buffer."""

    def __init__(self, seed, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(5, 6, 7, generator=generator).to(dtype))
        self.register_buffer("mean", torch.randn(5, generator=generator).to(dtype))
        self.register_buffer("steps", torch.tensor(seed))


def tensors(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(("step", "decay"), [(0, 0.0), (1, 0.5), (3, 0.75), (98, 98 / 99), (99, 0.99), (100_000, 0.99)])
def test_decay_by_hand(step, decay):
    assert teacher_decay(step) == pytest.approx(decay, abs=1e-12)


def test_decay_is_limited_by_the_setting():
    assert teacher_decay(1000, max_decay=0.9) == 0.9
    assert teacher_decay(1000, max_decay=0.0) == 0.0


def test_decay_0_makes_the_teacher_the_student():
    teacher, student = Net(1), Net(2)
    update_teacher(teacher, student, 0.0)
    for name, value in student.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)


def test_decay_1_keeps_parameters_and_floating_buffers():
    teacher, student = Net(1), Net(2)
    before = tensors(teacher)
    update_teacher(teacher, student, 1.0)
    assert torch.equal(teacher.weight, before["weight"]) and torch.equal(teacher.mean, before["mean"])


def test_integer_buffers_are_copied():
    teacher, student = Net(1), Net(2)
    update_teacher(teacher, student, 0.5)
    assert teacher.steps.item() == 2 and teacher.steps.dtype == torch.int64


def test_several_steps_equal_the_formula_in_double_precision():
    teacher, student = Net(1), Net(2)
    reference = {name: value.double() for name, value in tensors(teacher).items()}
    for step in range(5):
        with torch.no_grad():
            student.weight.add_(0.1 * step)
            student.mean.mul_(1.1)
        decay = teacher_decay(step, max_decay=0.7)
        update_teacher(teacher, student, decay)
        for name in ("weight", "mean"):
            reference[name] = decay * reference[name] + (1 - decay) * getattr(student, name).detach().double()
    for name in ("weight", "mean"):
        torch.testing.assert_close(getattr(teacher, name).detach().double(), reference[name], rtol=1e-6, atol=1e-6)


def test_the_student_stays_as_it_is():
    teacher, student = Net(1), Net(2)
    before = tensors(student)
    update_teacher(teacher, student, 0.9)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_half_precision_is_averaged_in_float32():
    teacher, student = Net(1, torch.float16), Net(2, torch.float16)
    expected = torch.lerp(teacher.weight.detach().float(), student.weight.detach().float(), 1 - 0.9).half()
    in_half = teacher.weight.detach() * 0.9 + student.weight.detach() * 0.1
    assert not torch.equal(expected, in_half), "this case would not tell the two apart"
    update_teacher(teacher, student, 0.9)
    assert torch.equal(teacher.weight, expected) and teacher.weight.dtype == torch.float16


def test_a_tensor_that_a_module_lists_twice_is_averaged_once():
    def net(value):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, value)
        return nn.ModuleDict({"encoder": layer, "decoder": nn.ModuleDict({"encoder": layer})})

    teacher = net(0.0)
    update_teacher(teacher, net(1.0), 0.75)
    assert len(teacher.state_dict()) == 2
    assert teacher["encoder"].weight.item() == 0.25


def test_every_weight_of_nnunets_network_is_averaged_once():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    student = PlainConvUNet(
        1, 2, (2, 3), nn.Conv2d, 3, [1, 2], 1, 2, 1, norm_op=nn.InstanceNorm2d, nonlin=nn.ReLU, deep_supervision=True
    )
    teacher = deepcopy(student)
    for parameter_0, parameter_1 in zip(teacher.parameters(), student.parameters(), strict=True):
        nn.init.zeros_(parameter_0)
        nn.init.ones_(parameter_1)
    update_teacher(teacher, student, 0.75)
    assert all((parameter == 0.25).all() for parameter in teacher.parameters())


@pytest.mark.parametrize(
    "other",
    [nn.ModuleDict({"module": Net(2)}), nn.Sequential(Net(2)), nn.Linear(2, 3)],
    ids=["wrapped as by DDP", "inside a list", "another module"],
)
def test_wrapped_and_other_modules_are_refused_before_anything_changes(other):
    teacher = Net(1)
    before = tensors(teacher)
    with pytest.raises(ValueError, match="unwrap both"):
        update_teacher(teacher, other, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_same_names_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="'weight'"):
        update_teacher(nn.Linear(1, 1, bias=False), nn.Linear(2, 3, bias=False), 0.5)
