"""CPU tensors that claim to be on a GPU: mixing devices, and what a GPU tensor refuses, raises here as it does there.

Not shown: CUDA's kernels, its own choice of precision, compiled code, NCCL, pinned memory, streams.
"""

from __future__ import annotations

import contextlib
import threading
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
TAG = "_on_fake_cuda"
Tensor, RealGenerator = torch.Tensor, torch.Generator
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
ANYWHERE = {
    Tensor.copy_,
    Tensor.data.__set__,
    Tensor.grad.__set__,
    Tensor.set_,
    torch._has_compatible_shallow_copy_type,
}
REFUSED = {Tensor.numpy, Tensor.__array__, Tensor.pin_memory}
TO_PYTHON = {Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__}


def is_cuda(tensor: Tensor) -> bool:
    return getattr(tensor, "__dict__", {}).get(TAG, False)


def tag(result, cuda: bool):
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            leaf.__dict__[TAG] = cuda
    return result


def kind(device) -> torch.device:
    return CUDA if torch.device(device).type == "cuda" else CPU


class Generator(RealGenerator):
    """torch.Generator that knows for which device it was made."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.claimed = kind(device)
        return made


class FakeCuda(TorchFunctionMode):
    """Inside, tensors made on or sent to "cuda" stay on the CPU and are marked; see the module.

    Attributes:
        syncs: how often a marked tensor was read by the host, by function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.syncs: dict[str, int] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        on = [is_cuda(t) for t in tensors]
        if func == Tensor.device.__get__:
            return CUDA if on[0] else CPU
        if func == Tensor.is_cuda.__get__:
            return on[0]
        if func == Tensor.grad.__get__ or func == Tensor.data.__get__:
            return tag(func(*args, **kwargs), on[0])
        if func == Tensor.data.__set__:
            func(*args, **kwargs)
            tag(args[0], on[1])
            return None
        if func in REFUSED and on[0]:
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({name})")
        if any(on) and (func in TO_PYTHON or name in ("nonzero", "bincount", "unique")):
            self.syncs[name] = self.syncs.get(name, 0) + 1
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self.move(func, args, kwargs, on[0])
        target = None
        if kwargs.get("device") is not None:  # factories, and new_tensor and the like
            target, kwargs["device"] = kind(kwargs["device"]), CPU
        if isinstance(generator := kwargs.get("generator"), RealGenerator):
            device = target or (CUDA if any(on) else CPU)
            if getattr(generator, "claimed", CPU) != device:
                raise RuntimeError(f"Expected a {device} generator in {name}")
        inside_torch = func in ANYWHERE or name.startswith(("_foreach_", "_amp_"))  # which asks in C++ for devices
        if not inside_torch and any(on) and not all(on):
            self.check_mixed(func, name, args, tensors, on)
        result = func(*args, **kwargs)
        return tag(result, target == CUDA if target else any(on))

    @staticmethod
    def check_mixed(func, name, args, tensors, on) -> None:
        """As CUDA: a CPU tensor without axes is a number, and indices may come from the CPU; all else is an error."""
        if func in INDEXING and is_cuda(args[0]):
            return
        lists = any(isinstance(a, (list, tuple)) and any(isinstance(t, Tensor) for t in a) for a in args)
        if lists or any(t.ndim for t, cuda in zip(tensors, on, strict=True) if not cuda):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")

    @staticmethod
    def move(func, args, kwargs, was_cuda):
        """to(), cpu() and cuda(): the device is taken out of the arguments, types stay."""
        cuda = {Tensor.cpu: False, Tensor.cuda: True}.get(func, was_cuda)
        dtype = kwargs.get("dtype")
        for value in (*args[1:], kwargs.get("device")):
            if isinstance(value, (torch.device, str)):
                cuda = kind(value) == CUDA
            elif isinstance(value, Tensor):
                cuda, dtype = is_cuda(value), value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
        how = {"memory_format": kwargs["memory_format"]} if kwargs.get("memory_format") is not None else {}
        moved = args[0].to(dtype or args[0].dtype, **how)
        if cuda != was_cuda and moved is args[0]:
            moved = moved * 1 if moved.requires_grad else moved.clone()
        return tag(moved, cuda) if moved is not args[0] else moved


class Here(threading.Thread):
    """A thread that has the mode of the others."""

    def run(self) -> None:
        with FakeCuda():
            super().run()


@contextlib.contextmanager
def fake_cuda():
    """Inside, torch says that there is one GPU. Networks are not compiled, autocast is the CPU's in float16."""
    from nnunetv2.inference import predict_from_raw_data as predictor

    from nnunet_gmabs import inference
    from nnunet_gmabs.trainers import base

    def half(device, cpu_bfloat16=False):
        return torch.autocast("cpu", torch.float16, enabled=device.type == "cuda")

    there_is_one = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "fake",
        "manual_seed_all": lambda _: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }
    with contextlib.ExitStack() as stack:
        for name, value in there_is_one.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        for module in (base, inference):
            stack.enter_context(mock.patch.object(module, "mixed_precision", half))
        make = Tensor._make_subclass  # of Parameter, which no mode sees

        @staticmethod
        def same(cls, data, *rest):
            return tag(make(cls, data, *rest), is_cuda(data))

        stack.enter_context(mock.patch.object(Tensor, "_make_subclass", same))
        stack.enter_context(mock.patch.object(predictor, "Thread", Here))
        load = torch.load

        def to_fake(file, map_location="cpu", **how):
            return tag(load(file, "cpu", **how), kind(map_location) == CUDA)

        stack.enter_context(mock.patch.object(torch, "load", to_fake))
        mode = FakeCuda()
        stack.enter_context(mode)
        yield mode
