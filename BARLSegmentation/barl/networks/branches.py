# SPDX-License-Identifier: Apache-2.0
"""Two co-training U-Nets with a head per decoder scale and a projected feature map for alignment.

Reconstruction of BARL's "two collaborative branches" with "multi-scale decoding" (BARL, abstract). The paper's
backbone is not public; the blocks are MONAI's ``UnetBasicBlock``/``UnetResBlock`` (instance norm, leaky ReLU), which
train on the small batches of this tool, where the batch norm of the field's V-Net would not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import prod

import torch
from monai.networks.blocks import UpSample
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from torch import Tensor, nn

Triple = tuple[int, int, int]


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
        upsampling: Per branch ``"deconv"`` (learned) or ``"linear"``: different up-sampling decorrelates the branches.
        residual: Per branch, whether the blocks are residual.
        feature_level: Decoder level whose output is projected for the alignment (0 = full resolution).
        projector: Channels of the projected features.
    """

    in_channels: int
    n_classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[Triple, ...] = field(default=())
    kernels: tuple[Triple, ...] = field(default=())
    n_scales: int = 3
    n_branches: int = 2
    upsampling: tuple[str, ...] = ("deconv", "linear")
    residual: tuple[bool, ...] = (False, True)
    feature_level: int = 0
    projector: int = 16

    def __post_init__(self) -> None:
        depth = len(self.widths)
        strides = self.strides or ((1, 1, 1), *[(2, 2, 2)] * (depth - 1))
        kernels = self.kernels or ((3, 3, 3),) * depth
        if not len(strides) == len(kernels) == depth or depth < 2:
            raise ValueError("widths, strides and kernels need one entry per level, two levels at least")
        object.__setattr__(self, "strides", tuple(tuple(s) for s in strides))
        object.__setattr__(self, "kernels", tuple(tuple(k) for k in kernels))
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "upsampling", tuple(self.upsampling))
        object.__setattr__(self, "residual", tuple(self.residual))
        object.__setattr__(self, "n_scales", min(self.n_scales, depth - 1))

    @property
    def divisor(self) -> Triple:
        """Factor ``(k, j, i)`` that each patch edge must be a multiple of."""
        return tuple(prod(stride[axis] for stride in self.strides) for axis in range(3))

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> NetworkSpec:
        return cls(**values)


@dataclass
class BranchOutput:
    """What one branch says about a patch.

    Attributes:
        logits: One tensor ``[B, L+1, k, j, i]`` per scale, coarse to fine, each at its own resolution.
        features: Projected features ``[B, F, k, j, i]`` of the last decoder block.
    """

    logits: list[Tensor]
    features: Tensor


class Branch(nn.Module):
    """One U-Net: encoder, decoder, a 1x1x1 head per scale, and the projector.

    Args:
        spec: What to build.
        index: Which branch: chooses its up-sampling and whether it is residual.
    """

    def __init__(self, spec: NetworkSpec, index: int) -> None:
        super().__init__()
        block = UnetResBlock if spec.residual[index % len(spec.residual)] else UnetBasicBlock
        mode = "deconv" if spec.upsampling[index % len(spec.upsampling)] == "deconv" else "nontrainable"
        norm = ("instance", {"affine": True})
        inputs = (spec.in_channels, *spec.widths[:-1])
        self.feature_level = spec.feature_level
        self.down = nn.ModuleList(
            block(3, i, o, kernel_size=k, stride=s, norm_name=norm)
            for i, o, k, s in zip(inputs, spec.widths, spec.kernels, spec.strides, strict=True)
        )
        levels = range(len(spec.widths) - 1)
        self.up = nn.ModuleList(
            UpSample(
                3,
                spec.widths[n + 1],
                spec.widths[n],
                scale_factor=spec.strides[n + 1],
                mode=mode,
                interp_mode="linear",
                align_corners=False,
            )
            for n in levels
        )
        self.merge = nn.ModuleList(
            block(3, 2 * spec.widths[n], spec.widths[n], kernel_size=spec.kernels[n], stride=1, norm_name=norm)
            for n in levels
        )
        self.heads = nn.ModuleList(nn.Conv3d(spec.widths[n], spec.n_classes, 1) for n in range(spec.n_scales))
        self.projector = nn.Sequential(
            nn.Conv3d(spec.widths[spec.feature_level], spec.projector, 1),
            nn.LeakyReLU(0.01),
            nn.Conv3d(spec.projector, spec.projector, 1),
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        return skips

    def decode(self, skips: list[Tensor]) -> list[Tensor]:
        """Decoder outputs by level, finest first."""
        x = skips[-1]
        levels = []
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
            levels.append(x)
        return levels[::-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.heads[0](self.decode(self.encode(x))[0])

    def scales(self, x: Tensor) -> BranchOutput:
        levels = self.decode(self.encode(x))
        logits = [head(level) for head, level in zip(self.heads, levels, strict=False)][::-1]
        return BranchOutput(logits, self.projector(levels[self.feature_level]))


class BranchPair(nn.Module):
    """The branches of one model; independent weights, one specification.

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

    def forward(self, x: Tensor, branch: int = 0) -> Tensor:
        """Logits ``[B, L+1, k, j, i]`` of the finest scale for ``x [B, C, k, j, i]``."""
        return self.branches[branch](x)

    def scales(self, x: Tensor, branch: int = 0) -> BranchOutput:
        return self.branches[branch].scales(x)

    def describe(self, x: Tensor) -> Tensor:
        """Bottleneck of the first branch averaged over space, ``[B, F]``: tells how alike two scans are."""
        return self.branches[0].encode(x)[-1].mean(dim=(2, 3, 4))


def build_network(spec: NetworkSpec, seed: int | None = None) -> BranchPair:
    """Build the branches with random weights; with ``seed`` the same weights each time, the caller's RNG untouched."""
    if seed is None:
        return BranchPair(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BranchPair(spec)
