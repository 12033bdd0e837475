# SPDX-License-Identifier: Apache-2.0
"""Co-training U-Nets with a head per decoder scale and a projected feature map for alignment.

Reconstruction of BARL's "two collaborative branches" with "multi-scale decoding" (BARL, abstract). The paper's
backbone is not public; the blocks are MONAI's ``UnetBasicBlock``/``UnetResBlock`` (instance norm, leaky ReLU), which
train on the small batches of this tool, where the batch norm of the field's V-Net would not.

A method may ask for another shape (``Method.network_options``): one encoder with several decoders (MC-Net, DBiSL),
signed distance maps besides or instead of the segmentation (DTC, SASSNet, DBiSL), dropout (UA-MT), or a single branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.networks.blocks import UpSample
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from torch import Tensor, nn

from barl.images.geometry import Triple, triple

TASKS = ("segmentation", "distance", "both")
# Fields that the first model cards did not have: left out where unused, so that every version reads those cards.
_ADDED = ("shared_encoder", "tasks", "dropout", "steepness", "blocks")


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build the branches again.

    Attributes:
        in_channels: Channels of the scan.
        n_classes: Classes including background.
        widths: Feature channels per level, finest first.
        strides: Down-sampling ``(k, j, i)`` on entering each level; the first is ``(1, 1, 1)``.
        kernels: Convolution kernel ``(k, j, i)`` per level.
        n_scales: Decoder levels that carry a head, counted from the finest.
        n_branches: Two for co-training; one where a method needs no partner.
        upsampling: Per branch ``"deconv"`` (learned), ``"linear"`` or ``"nearest"``: different up-sampling decorrelates
            the branches.
        residual: Per branch, whether the blocks are residual.
        feature_level: Decoder level whose output is projected for the alignment (0 = full resolution).
        projector: Channels of the projected features.
        shared_encoder: The branches are decoders on one encoder, that of the first branch.
        tasks: Per branch ``"segmentation"``, ``"distance"`` (a signed distance map per class instead) or ``"both"``.
        dropout: Share of feature channels dropped in training after the deepest level and before the heads.
        steepness: ``k`` by which a branch without segmentation turns its distances into logits (``k d / 2`` per class:
            of two classes this is the logistic function of ``k d``).
        blocks: Convolution blocks per level of the encoder; one each if empty.

    A value per branch is repeated if there are more branches than values.
    """

    in_channels: int
    n_classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[Triple[int], ...] = field(default=())
    kernels: tuple[Triple[int], ...] = field(default=())
    n_scales: int = 3
    n_branches: int = 2
    upsampling: tuple[str, ...] = ("deconv", "linear")
    residual: tuple[bool, ...] = (False, True)
    feature_level: int = 0
    projector: int = 16
    shared_encoder: bool = False
    tasks: tuple[str, ...] = ("segmentation",)
    dropout: float = 0.0
    steepness: float = 50.0
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        depth = len(self.widths)
        strides = self.strides or ((1, 1, 1), *[(2, 2, 2)] * (depth - 1))
        kernels = self.kernels or ((3, 3, 3),) * depth
        if not len(strides) == len(kernels) == depth or depth < 2:
            raise ValueError("widths, strides and kernels need one entry per level, two levels at least")
        if self.blocks and (len(self.blocks) != depth or min(self.blocks) < 1):
            raise ValueError("blocks needs one number from 1 on per level")
        object.__setattr__(self, "strides", tuple(tuple(s) for s in strides))
        object.__setattr__(self, "kernels", tuple(tuple(k) for k in kernels))
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "upsampling", tuple(self.upsampling))
        object.__setattr__(self, "residual", tuple(self.residual))
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if unknown := set(self.tasks) - set(TASKS):
            raise ValueError(f"a branch has no task {sorted(unknown)[0]!r}; tasks are {', '.join(TASKS)}")
        object.__setattr__(self, "n_scales", min(self.n_scales, depth - 1))

    @property
    def divisor(self) -> Triple[int]:
        """Factor ``(k, j, i)`` that each patch edge must be a multiple of."""
        return triple(prod(stride[axis] for stride in self.strides) for axis in range(3))

    def to_json(self) -> dict[str, Any]:
        unused = [name for name in _ADDED if getattr(self, name) == getattr(type(self), name)]
        return {name: value for name, value in asdict(self).items() if name not in unused}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkSpec:
        return cls(**values)


@dataclass
class BranchOutput:
    """The outputs of one branch for a patch.

    Attributes:
        logits: One tensor ``[B, L+1, k, j, i]`` per scale, coarse to fine, each at its own resolution. A branch without
            segmentation has one, made of its distances.
        features: Projected features ``[B, F, k, j, i]`` of the last decoder block.
        distances: Signed distance to the border of each class ``[B, L+1, k, j, i]`` in [-1, 1] (tanh), positive inside;
            ``None`` for a branch that does segmentation only. Of two classes the one map is minus the other.
    """

    logits: list[Tensor]
    features: Tensor
    distances: Tensor | None = None

    def log_probabilities(self) -> list[Tensor]:
        """Log-softmax over the classes per scale, coarse to fine, each float32 ``[B, L+1, k, j, i]``."""
        return [z.float().log_softmax(1) for z in self.logits]

    def signed_distances(self) -> Tensor:
        """``distances`` in float32, of a method that asks for the distance task.

        Raises:
            ValueError: The branch does segmentation only.
        """
        if self.distances is None:
            raise ValueError("this branch has no distance head")
        return self.distances.float()


class Branch(nn.Module):
    """One U-Net: encoder (unless it uses another branch's), decoder, a 1x1x1 head per scale, and the projector.

    Args:
        spec: What to build.
        index: Which branch: chooses its up-sampling, its tasks and whether it is residual.
    """

    def __init__(self, spec: NetworkSpec, index: int) -> None:
        super().__init__()
        block = UnetResBlock if spec.residual[index % len(spec.residual)] else UnetBasicBlock
        upsampling = spec.upsampling[index % len(spec.upsampling)]
        task = spec.tasks[index % len(spec.tasks)]
        norm = ("instance", {"affine": True})
        inputs = (spec.in_channels, *spec.widths[:-1])
        self.feature_level = spec.feature_level
        self.n_classes, self.steepness = spec.n_classes, spec.steepness
        if index == 0 or not spec.shared_encoder:
            counts = spec.blocks or (1,) * len(spec.widths)
            self.down = nn.ModuleList(
                _level(
                    block(3, i, o, kernel_size=k, stride=s, norm_name=norm),
                    *(block(3, o, o, kernel_size=k, stride=1, norm_name=norm) for _ in range(count - 1)),
                )
                for i, o, k, s, count in zip(inputs, spec.widths, spec.kernels, spec.strides, counts, strict=True)
            )
        levels = range(len(spec.widths) - 1)
        self.up = nn.ModuleList(
            UpSample(
                3,
                spec.widths[n + 1],
                spec.widths[n],
                scale_factor=spec.strides[n + 1],
                mode="deconv" if upsampling == "deconv" else "nontrainable",
                interp_mode="nearest" if upsampling == "nearest" else "linear",
                align_corners=None if upsampling == "nearest" else False,
            )
            for n in levels
        )
        self.merge = nn.ModuleList(
            block(3, 2 * spec.widths[n], spec.widths[n], kernel_size=spec.kernels[n], stride=1, norm_name=norm)
            for n in levels
        )
        n_heads = 0 if task == "distance" else spec.n_scales
        self.heads = nn.ModuleList(nn.Conv3d(spec.widths[n], spec.n_classes, 1) for n in range(n_heads))
        self.projector = nn.Sequential(
            nn.Conv3d(spec.widths[spec.feature_level], spec.projector, 1),
            nn.LeakyReLU(0.01),
            nn.Conv3d(spec.projector, spec.projector, 1),
        )
        self.dropout = nn.Dropout3d(spec.dropout)
        self.regression: nn.Conv3d | None = None
        if task != "segmentation":
            # Two classes share one border: inside of the one is outside of the other.
            self.regression = nn.Conv3d(spec.widths[0], 1 if spec.n_classes == 2 else spec.n_classes, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips[-1] = self.dropout(x)
        return skips

    def decode(self, skips: list[Tensor]) -> list[Tensor]:
        """Decoder outputs by level, finest first."""
        x = skips[-1]
        levels = []
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
            levels.append(x)
        return levels[::-1]

    def forward(self, skips: list[Tensor]) -> Tensor:
        """Logits of the finest scale from an encoder's outputs."""
        level = self.dropout(self.decode(skips)[0])
        return self.heads[0](level) if len(self.heads) else self._as_logits(self._distances(level))

    def scales(self, skips: list[Tensor]) -> BranchOutput:
        """All heads and the projected features from an encoder's outputs."""
        levels = self.decode(skips)
        features = self.projector(levels[self.feature_level])
        levels = [self.dropout(levels[0]), *levels[1:]]
        distances = None if self.regression is None else self._distances(levels[0])
        logits = [head(level) for head, level in zip(self.heads, levels, strict=False)][::-1]
        if not logits and distances is not None:
            logits = [self._as_logits(distances)]
        return BranchOutput(logits, features, distances)

    def _distances(self, level: Tensor) -> Tensor:
        assert self.regression is not None  # a branch has heads, distances or both
        distances = self.regression(level).tanh()
        return torch.cat([-distances, distances], dim=1) if self.n_classes == 2 else distances

    def _as_logits(self, distances: Tensor) -> Tensor:
        return 0.5 * self.steepness * distances


def _level(*blocks: nn.Module) -> nn.Module:
    """The blocks one after the other; a single one by itself, whose weights then have the names of version 0.1."""
    return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)


class Network(nn.Module):
    """What a method computes its losses with: ``n_branches`` branches that can be asked one by one or together."""

    @property
    def n_branches(self) -> int:
        raise NotImplementedError

    def views(self, x: Tensor, branches: Sequence[int] | None = None) -> list[BranchOutput]:
        """``scales`` of several branches (all by default) on the same patch ``[B, C, k, j, i]``."""
        raise NotImplementedError

    def scales(self, x: Tensor, branch: int = 0) -> BranchOutput:
        """All heads of one branch on ``x [B, C, k, j, i]``."""
        return self.views(x, [branch])[0]

    def perturbed(self, x: Tensor, shares: Sequence[float], branch: int = 0) -> list[BranchOutput]:
        """``scales``, then for each of ``shares`` the same with that share of the encoder's channels dropped.

        The channels are drawn at random at every level, for each patch (``Dropout3d``), in prediction as well.
        """
        raise NotImplementedError


class BranchPair(Network):
    """The branches of one model, one specification: networks with weights of their own, or decoders on one encoder.

    Args:
        spec: What to build.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.branches = nn.ModuleList(Branch(spec, index) for index in range(spec.n_branches))

    @property
    def n_branches(self) -> int:
        return len(self.branches)

    def branch(self, index: int) -> Branch:
        return cast(Branch, self.branches[index])

    def forward(self, x: Tensor, branch: int = 0) -> Tensor:
        """Logits ``[B, L+1, k, j, i]`` of the finest scale for ``x [B, C, k, j, i]``."""
        return self.logits(x, [branch])[0]

    def logits(self, x: Tensor, branches: Sequence[int]) -> list[Tensor]:
        """``forward`` of several branches on the same patch; a shared encoder runs once."""
        encode = self._encoder(x)
        return [self.branch(branch)(encode(branch)) for branch in branches]

    def views(self, x: Tensor, branches: Sequence[int] | None = None) -> list[BranchOutput]:
        """``scales`` of several branches (all by default) on the same patch; a shared encoder runs once."""
        encode = self._encoder(x)
        chosen = range(self.n_branches) if branches is None else branches
        return [self.branch(branch).scales(encode(branch)) for branch in chosen]

    def perturbed(self, x: Tensor, shares: Sequence[float], branch: int = 0) -> list[BranchOutput]:
        """See ``Network.perturbed``; the encoder runs once."""
        skips, decoder = self._encoder(x)(branch), self.branch(branch)
        dropped = ([F.dropout3d(level, share) for level in skips] for share in shares)
        return [decoder.scales(levels) for levels in (skips, *dropped)]

    def _encoder(self, x: Tensor) -> Callable[[int], list[Tensor]]:
        """Gives the encoder's outputs for a branch; of separate encoders none is run before it is asked for."""
        if not self.spec.shared_encoder:
            return lambda branch: self.branch(branch).encode(x)
        skips = self.branch(0).encode(x)
        return lambda branch: skips

    def describe(self, x: Tensor) -> Tensor:
        """Bottleneck of the first branch averaged over space, ``[B, F]``: scans with similar features are similar."""
        return self.branch(0).encode(x)[-1].mean(dim=(2, 3, 4))


class Members(nn.Module):
    """Several networks of one specification that predict together: the branches of all of them, one after the other.

    Args:
        members: The networks, at least one.
    """

    def __init__(self, members: Sequence[BranchPair]) -> None:
        super().__init__()
        self.spec = members[0].spec
        self.members = nn.ModuleList(members)

    @property
    def n_branches(self) -> int:
        return len(self.members) * self.spec.n_branches

    def member(self, index: int) -> BranchPair:
        return cast(BranchPair, self.members[index])

    def logits(self, x: Tensor, branches: Sequence[int]) -> list[Tensor]:
        """Logits ``[B, L+1, k, j, i]`` of each branch asked for, in ascending order of ``branches``."""
        outputs = []
        for n in range(len(self.members)):
            own = [branch % self.spec.n_branches for branch in branches if branch // self.spec.n_branches == n]
            outputs += self.member(n).logits(x, own) if own else []
        return outputs

    def describe(self, x: Tensor) -> Tensor:
        """See ``BranchPair.describe``: of the first member, as features of several networks cannot be compared."""
        return self.member(0).describe(x)


def build_network(spec: NetworkSpec, seed: int | None = None) -> BranchPair:
    """Build the branches with random weights; with ``seed`` the same weights each time, the caller's RNG untouched."""
    if seed is None:
        return BranchPair(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BranchPair(spec)
