"""The processes of one training, its ranks: who writes, who waits, and what they sum."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_gmabs.learning.losses import Total, alone

Value = TypeVar("Value")
# A rank may wait while others relabel scans for hours; when one dies, the launcher ends them all. Gloo counts
# milliseconds in 32 bits, which is 24 days.
PATIENCE = timedelta(days=7)
BUCKET = 2**25  # gradients summed in one call: 128 MiB in float32


class Ranks:
    """This process and the others of its training; built by all at the same time.

    Tensors are summed by the group that the launcher made (NCCL on GPUs). Everything else, and every wait, goes
    through a gloo group of its own: NCCL ends a process whose barrier takes longer than ten minutes.

    Attributes:
        rank: of this process, over all machines; 0 is the one that writes.
        number: how many there are.
    """

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if several else 0
        self.number = dist.get_world_size() if several else 1
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if self.number > 1 else None

    @property
    def writes(self) -> bool:
        """Whether files, other than results that ranks share out, are this rank's to write."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """Which of a list of scans, or of the samples of a batch, are this rank's."""
        return slice(self.rank, None, self.number)

    # ---- objects, and waiting

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self._group is not None:
            dist.barrier(group=self._group)

    def gather(self, value: Value) -> list[Value]:
        """Everyone's value (picklable), in the order of the ranks; the same list on all of them."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.number
        dist.all_gather_object(values, value, group=self._group)
        return values

    def summed(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by name, summed over ranks."""
        of_ranks = self.gather(arrays)
        return {name: np.sum([of_rank[name] for of_rank in of_ranks], 0) for name in arrays}

    def of_writer(self, value: Value) -> Value:
        """The value that the rank that writes has; waits for it."""
        if self._group is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    @contextmanager
    def writer_first(self) -> Iterator[None]:
        """Inside, the rank that writes goes first: what it builds, the others find."""
        if not self.writes:
            self.wait()
        yield
        if self.writes:
            self.wait()

    def errors(self, work: Callable[[], object], kind: type[Exception]) -> list[str]:
        """Do this rank's part of some work, wait for the others, and return everyone's errors of one kind."""
        try:
            work()
            error = ""
        except kind as e:
            error = str(e) or type(e).__name__
        return [e for e in self.gather(error) if e]

    # ---- tensors

    @property
    def total(self) -> Total:
        """The sum over ranks of tensors of one shape, for learning/losses.py: its gradient is this rank's part."""
        return alone if self.number == 1 else _SumOverRanks.apply

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over ranks.

        A rank without a gradient that another one has counts as 0; what nobody has stays away. Nothing is averaged:
        each rank's gradient is its part of that of the whole batch's loss. Not finite on one rank is not finite on all,
        so that mixed precision skips the same steps everywhere.
        """
        if self.number == 1:
            return
        learned = [p for p in parameters if p.requires_grad]
        anywhere = torch.tensor([p.grad is not None for p in learned], dtype=torch.int32, device=learned[0].device)
        dist.all_reduce(anywhere, dist.ReduceOp.MAX)
        for parameter, reached in zip(learned, anywhere.tolist(), strict=True):
            if parameter.grad is None and reached:  # else: an optimiser leaves it alone, weight decay included
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in learned if p.grad is not None]):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def require_equal(self, networks: dict[str, nn.Module]) -> None:
        """Compare all weights and buffers bit by bit, by their checksums.

        Raises:
            RuntimeError: a network that is not the same on all ranks.
        """
        if self.number == 1:
            return
        sums = self.gather({name: checksum(network) for name, network in networks.items()})
        for name in networks:
            of_ranks = [of_rank[name] for of_rank in sums]
            differing = [str(rank) for rank, value in enumerate(of_ranks) if value != of_ranks[0]]
            if differing:
                raise RuntimeError(
                    f"the {name} of rank {', '.join(differing)} differs from that of rank 0, and must not; do all "
                    "ranks have the same kind of GPU, torch and settings? Continue with --c from the last checkpoint"
                )

    @contextmanager
    def writing_elsewhere(self, owner: Any, *attributes: str) -> Iterator[None]:
        """Inside, folders named by attributes of an object are temporary ones, but for the rank that writes."""
        if self.writes:
            yield
            return
        own = {name: getattr(owner, name) for name in attributes}
        with tempfile.TemporaryDirectory() as folder:
            try:
                for name in attributes:
                    setattr(owner, name, str(Path(folder)))
                yield
            finally:
                for name, value in own.items():
                    setattr(owner, name, value)


class _SumOverRanks(torch.autograd.Function):
    """Forward the sum over ranks, the same on all; backward the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        summed = sums.detach().clone(memory_format=torch.contiguous_format)  # else ranks add other entries
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in groups of one type, each of about BUCKET entries."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        bucket, entries = [], 0
        for tensor in (t for t in tensors if t.dtype == dtype):
            bucket.append(tensor)
            entries += tensor.numel()
            if entries >= BUCKET:
                yield bucket
                bucket, entries = [], 0
        if bucket:
            yield bucket


@torch.no_grad()
def checksum(network: nn.Module) -> int:
    """A whole number from all bits of parameters and buffers, each weighted by its place in its tensor."""
    total = 0
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.numel():
            whole = torch.int32 if tensor.element_size() % 4 == 0 else torch.uint8
            values = tensor.detach().reshape(-1).view(whole).long()
            places = torch.arange(1, len(values) + 1, device=values.device)
            total = (31 * total + int((values * places).sum())) % 2**63
    return total
