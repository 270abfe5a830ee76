"""Every process holds a share of the model (FSDP2): parameters, gradients and memories by rows.

A model whose passes are forward and backward is wrapped by `fully_shard`, block by block: the weights of a
block are gathered when it is about to run.  Where memories start at parameters, or learn between the
segments of a sequence, weights are read outside of any block's pass, many times a step; there they are
gathered once for the step, and its gradients are summed and scattered behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from nldsl.train.engine import Parameters
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed
from nldsl.train.optimisers import OptimiserGroup
from nldsl.train.parallel import Processes
from nldsl.train.parallel_rules import SharedGroup
from nldsl.train.passes import gathered_for_the_step
from nldsl.train.reduce import rows_of, scatter_sum, used_anywhere


def forget_passes(module: FSDPModule) -> None:
    """Take away what FSDP2 does around a pass, where weights are gathered for all passes of a step.

    Around a pass it puts copies in place of the tensors of the state that are differentiated by, and task
    memories know their own by identity.
    """
    state = module._get_fsdp_state()
    for handle in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
        handle.remove()


class Sharded(Processes):
    """Every process holds a share of the model, its gradients and the memories of its rules."""

    sharded = True

    def prepare(self, model: Any) -> None:
        """Shard the model.  Raises NL0994 for a parameter that has no rows."""
        model.to(self.device)
        for path, p in model.parameter_paths().items():
            if p.dim() == 0:
                raise fault("NL0994", f"`{path}` is a number, which `fsdp` cannot share", help="use `ddp`")
        self.at_once = gathered_for_the_step(model)
        self.mesh: DeviceMesh = init_device_mesh(self.device.type, (self.world,))
        self.parameters: Callable[[], dict[str, nn.Parameter]] = model.parameter_paths
        attached = () if self.at_once else model.root.attached().values()
        blocks = [b for b in attached if next(b.parameters(), None) is not None]
        for block in blocks:
            fully_shard(block, mesh=self.mesh)
        # What belongs to no block (embedding, head) is needed first and last: it is gathered once.
        self.root: FSDPModule = fully_shard(model.root, mesh=self.mesh, reshard_after_forward=False)
        for module in (*blocks, self.root):
            # The plain sum: every gradient has been divided by the targets of the whole batch already.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
        if self.at_once:
            forget_passes(self.root)
        self.shares = model.parameter_paths()

    def groups(self, claims: list[Claimed], model: nn.Module) -> list[OptimiserGroup]:
        """Rules for elements act on shares, rules for matrices at owners."""
        layout = Shares(self.rank, self.world, self.mesh)
        return [SharedGroup(claimed, layout, model) for claimed in claims]

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Whole weights for the step, where blocks do not gather their own."""
        if self.at_once:
            self.root.unshard()
        yield
        self.reshard()

    def whole(self) -> AbstractContextManager[None]:
        """Whole weights to read; shares behind it, so that the next step sees what has been learnt."""
        return self.passes()

    def reshard(self) -> None:
        """Hold nothing but shares."""
        for module in self.root.modules():  # type: ignore[attr-defined]
            if isinstance(module, FSDPModule):
                module.reshard()

    def piece(self, last: bool) -> AbstractContextManager[None]:
        """The last backward pass of a step sums and scatters the gradients."""
        if not self.at_once:
            self.root.set_requires_gradient_sync(last)
            self.root.set_is_last_backward(last)
        return nullcontext()

    @torch.no_grad()
    def exchange(self, loss: float) -> float:
        """Sum and scatter the gradients, if the blocks have not, and sum the loss."""
        if self.at_once:
            whole = self.parameters()
            used = used_anywhere([p.grad for p in whole.values()], self.device)
            paths = [path for path, wanted in zip(whole, used, strict=True) if wanted]
            found = [whole[path].grad for path in paths]
            sent = [torch.zeros_like(whole[p]) if g is None else g for p, g in zip(paths, found, strict=True)]
            for path, mine in zip(paths, scatter_sum(sent, self.rank, self.world), strict=True):
                self.shares[path].grad = as_share(mine, self.shares[path], self.mesh)
            for p in whole.values():
                p.grad = None
        return self.summed(loss)

    def norm(self, parameters: Parameters) -> Tensor:
        """The norm of all gradients together, from the shares."""
        local = [local_of(p.grad) for p in parameters.values() if p.grad is not None]
        square = torch.zeros((), dtype=torch.float64, device=self.device)
        if local:
            square += torch.stack([g.norm() for g in local]).double().square().sum()
        dist.all_reduce(square)
        return square.sqrt().float()

    def scale(self, parameters: Parameters, largest: float, norm: Tensor) -> None:
        """Scale the gradients down to the norm `largest`."""
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for p in parameters.values():
            if p.grad is not None:
                local_of(p.grad).mul_(factor)

    def full(self, tensor: Tensor | None) -> Tensor | None:
        """All of a parameter or gradient, from all processes."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Shares:
    """Parameters lie in shares of their rows; matrices come to their owners in one exchange, and go back."""

    sharded = True

    def __init__(self, rank: int, world: int, mesh: DeviceMesh) -> None:
        self.rank, self.world, self.mesh = rank, world, mesh

    def held(self, p: Tensor) -> Tensor:
        """The share."""
        return local_of(p)

    def master(self, p: Tensor) -> Tensor:
        """A whole copy, which the owner alone has."""
        return torch.empty(p.shape, dtype=p.dtype, device=local_of(p).device)

    def named(self, held: Tensor, p: Tensor) -> Tensor:
        """As a share of a whole."""
        return as_share(held, p, self.mesh)

    @torch.no_grad()
    def collect(self, group: SharedGroup, *, weights: bool = False) -> None:
        """Gradients to shares and owners; or the weights to the owners."""
        if not weights:
            for path, held in group.local.items():
                g = group.parameters[path].grad
                held.grad = None if g is None else local_of(g)
        if not group.owners:
            return
        mine = {path: self._part(group.parameters[path], weights) for path in group.owners}
        sent = [[mine[path] for path in group.of(owner)] for owner in range(self.world)]
        wanted = [self._sizes(group, self.rank, giver) for giver in range(self.world)]
        got = self._exchange(sent, wanted, next(iter(mine.values())))
        for index, (path, owned) in enumerate(group.owned.items()):
            whole = torch.cat([parts[index] for parts in got]).view(owned.shape)
            if weights:
                owned.copy_(whole)
            else:
                owned.grad = None if group.parameters[path].grad is None else whole

    @torch.no_grad()
    def spread(self, group: SharedGroup) -> None:
        """The rows of the owners' new weights to those who hold them."""
        if not group.owners:
            return
        sent = [
            [w.split(rows_of(len(w), self.world))[taker].reshape(-1) for w in group.owned.values()]
            for taker in range(self.world)
        ]
        wanted = [self._sizes(group, owner, self.rank) for owner in range(self.world)]
        like = local_of(next(iter(group.parameters.values())))
        for owner, parts in enumerate(self._exchange(sent, wanted, like)):
            for path, part in zip(group.of(owner), parts, strict=True):
                held = local_of(group.parameters[path])
                held.copy_(part.view_as(held))

    def _part(self, p: Tensor, weights: bool) -> Tensor:
        held = local_of(p)
        if weights:
            return held.reshape(-1)
        return torch.zeros_like(held).reshape(-1) if p.grad is None else local_of(p.grad).reshape(-1)

    def _sizes(self, group: SharedGroup, owner: int, holder: int) -> list[int]:
        """Of every matrix of an owner, the elements that a process holds."""
        shapes = [group.parameters[path].shape for path in group.of(owner)]
        return [rows_of(s[0], self.world)[holder] * s[1:].numel() for s in shapes]

    def _exchange(
        self, sent: list[list[Tensor]], wanted: list[list[int]], like: Tensor
    ) -> list[list[Tensor]]:
        """Every process gives every other its parts: one message for all matrices of a group."""
        given = torch.cat([like.new_empty(0), *(part for parts in sent for part in parts)])
        counts = [sum(part.numel() for part in parts) for parts in sent]
        got = like.new_empty(sum(map(sum, wanted)))
        dist.all_to_all_single(got, given, [sum(w) for w in wanted], counts)
        return [
            list(part.split(w)) for part, w in zip(got.split([sum(w) for w in wanted]), wanted, strict=True)
        ]


def local_of(tensor: Tensor) -> Tensor:
    """The rows of a shared tensor that this process holds: the memory itself, no copy."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_share(held: Tensor, whole: Tensor, mesh: DeviceMesh) -> Tensor:
    """`held` as the rows of this process of a tensor that lies as `whole` does."""
    found: Tensor = DTensor.from_local(
        held, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
    )
    return found
