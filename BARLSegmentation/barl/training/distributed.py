# SPDX-License-Identifier: Apache-2.0
"""Several processes, one batch: each computes its share, the losses see the joined batch.

Losses such as batch Dice, masked means and lesion pairs are not means over items, so averaging the gradients of each
process (as DistributedDataParallel does) would compute another loss than one process does. Here the branches' outputs
are gathered, every process computes the same joined loss, and the gradients of its own share are summed.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from barl.errors import InputError
from barl.methods import Batch
from barl.networks.branches import BranchOutput, BranchPair, Network


def check_processes(n_processes: int, device: torch.device) -> None:
    """Refuse a number of processes that there is nothing for.

    Raises:
        InputError: There are fewer graphics cards (on the CPU: cores), or the number is below 1.
    """
    if device.type not in ("cpu", "cuda") or n_processes < 1:
        raise InputError(
            f"A training in {n_processes} processes on {device.type} is not possible.", "Train in 1 process."
        )
    there = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    if n_processes > there:
        what = "graphics cards" if device.type == "cuda" else "cores and no graphics card"
        raise InputError(f"This computer has {there} {what}, not {n_processes}.", f"Use {there} at most.")


@dataclass(frozen=True)
class World:
    """This process among its peers (``rank`` 0 writes files)."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls, device: torch.device) -> World:
        """Join the processes that ``torchrun`` started; alone without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if device.type == "cuda":
            torch.cuda.set_device(local_rank)  # what NCCL sends goes through the present device
        if not dist.is_initialized():
            # The first process prepares the cases while the others wait; torchrun ends all as soon as one has failed.
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(days=1))
        return cls(dist.get_rank(), size, local_rank)

    def agree(self, value: bool) -> bool:
        """True for all as soon as it is true for one, so that no process waits for one that has stopped."""
        if self.size == 1:
            return value
        flag = torch.tensor(float(value))
        if dist.get_backend() == "nccl":
            flag = flag.cuda()
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def share(self, value: float) -> float:
        """The first process's value, for all."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        if dist.get_backend() == "nccl":
            shared = shared.cuda()
        dist.broadcast(shared, 0)
        return float(shared.item())


class _Gather(torch.autograd.Function):
    """Join a tensor of all processes along the batch, their items in turn; the backward pass keeps the own ones."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.own = slice(dist.get_rank(), None, dist.get_world_size())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every process computes the same loss, so the gradient is the same everywhere: nothing to exchange.
        return gradient[ctx.own].contiguous()


def gather(tensor: Tensor, n_labelled: int) -> Tensor:
    """The joined batch in the order of one process, labeled items first; each process has ``n_labelled`` of them."""
    return torch.cat([_Gather.apply(part) for part in (tensor[:n_labelled], tensor[n_labelled:]) if len(part)])


class JoinedNetwork(Network):
    """Stands for the network in a method's loss: takes the joined batch, runs the own share, returns all outputs.

    Args:
        network: The branches.
        own: The own share, as the loader gave it.
        rank: Of this process.
    """

    def __init__(self, network: BranchPair, own: Batch) -> None:
        super().__init__()
        self.network = network
        self.own = own

    @property
    def n_branches(self) -> int:
        return self.network.n_branches

    def joined(self) -> Batch:
        own = self.own
        n = own.n_labelled
        trust, unseen = (None if part is None else gather(part, n) for part in (own.trust, own.unseen))
        return Batch(gather(own.weak, n), gather(own.strong, n), gather(own.label, n), trust, unseen)

    def views(self, x: Tensor, branches: Sequence[int] | None = None) -> list[BranchOutput]:
        mine, n = self._share(x)
        return [_joined(output, n) for output in self.network.views(mine, branches)]

    def perturbed(self, x: Tensor, shares: Sequence[float], branch: int = 0) -> list[BranchOutput]:
        """See ``Network.perturbed``; every process draws the channels of its own share."""
        mine, n = self._share(x)
        return [_joined(output, n) for output in self.network.perturbed(mine, shares, branch)]

    def _share(self, x: Tensor) -> tuple[Tensor, int]:
        """The own share of ``x [B, ...]`` and how many of its items are gathered first.

        A method may pass a part of the batch, such as the untouched items, if the processes can share it evenly.
        """
        size, rank = dist.get_world_size(), dist.get_rank()
        each = len(x) // size
        n = min(self.own.n_labelled, each)
        return torch.cat([x[: n * size][rank::size], x[n * size :][rank::size]]), n


def _joined(output: BranchOutput, n: int) -> BranchOutput:
    return BranchOutput(
        [gather(z.float(), n) for z in output.logits],
        gather(output.features.float(), n),
        None if output.distances is None else gather(output.distances.float(), n),
    )


def sum_gradients(network: nn.Module) -> None:
    """Add up the gradients of all processes, in one message."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        # A part of the network that no process used keeps no gradient, as with one process.
        if parameter.grad is not None or bool(part.any()):
            parameter.grad = part.view_as(parameter)
