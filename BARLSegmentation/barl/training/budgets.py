# SPDX-License-Identifier: Apache-2.0
"""How large a network, a patch and a run may be, by device and by the effort that the user asks for.

What a plan of a CPU reaches was measured on MR of the hippocampus (docs/decisions/0008-engine-recipe.md). The plans of
a GPU follow nnU-Net's residual encoder presets (Isensee et al., "nnU-Net Revisited", MICCAI 2024) and were checked for
memory alone; those of Apple's GPUs were not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from barl.errors import InputError

EFFORTS = ("quick", "standard", "thorough")
_SHARE_OF_MEMORY = 0.85
# Half the batch where a patch would have fewer voxels than this.
_LEAST_VOXELS = 96**3


@dataclass(frozen=True)
class Budget:
    """The limits and defaults of one effort on one kind of device.

    Attributes:
        widths: Feature channels per level.
        blocks: Residual blocks per level of the encoders; empty: one block per level.
        patch_voxels: Upper limit of a patch.
        volume_voxels: A median scan with more voxels is trained at coarser spacing.
        iterations: Length of a run without a time budget.
        batch: Labeled and unlabeled patches a step, each.
        learning_rate: Of AdamW at the start.
        loader_workers: Processes that prepare patches. On a CPU one takes more from the network's threads (0.91 of the
            rate without any loading, 2 cores) than preparing them in between (0.97).
        from_minutes: A time budget from so many minutes on chooses this effort.
        measured: What *supervised* reached on MR of the hippocampus with 4 outlined subjects; empty: not measured.
        average: Share of the run over which weights are averaged. Not on a GPU: not measured there.
        fixed_bytes: Memory of a step for weights, their copies in half precision, gradients and moments (18 bytes a
            weight); only looked at on a GPU.
        voxel_bytes: Memory of a step of BARL per voxel, patch and branch beside that, in half precision: what is kept
            for the backward pass, and 40 % for what comes and goes (measured on a CPU at widths 16 to 128).
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch_voxels: int
    volume_voxels: float
    iterations: int
    batch: int
    learning_rate: float
    loader_workers: int
    from_minutes: float
    average: float = 0.05
    fixed_bytes: float = 0.3e9
    voxel_bytes: float = 1700
    measured: str = ""

    def batch_in(self, memory_bytes: int) -> int:
        """Patches a step of each kind with which a step fits in ``memory_bytes``."""
        return self.batch if self.voxels_in(memory_bytes, self.batch) >= _LEAST_VOXELS else 1

    def voxels_in(self, memory_bytes: int, batch: int) -> int:
        """Voxels of a patch with which a step of two branches on ``batch`` patches of each kind fits."""
        left = max(_SHARE_OF_MEMORY * memory_bytes - self.fixed_bytes, 0.0)
        return int(left / (self.voxel_bytes * 2 * 2 * batch))


# A width of 16 fills a vector register of the processor: on two branches, widths 16 to 128 take 1.7 times as long as 8
# to 64, with four times the weights. Where a step takes long, many small steps learn more: on the hippocampus tuning
# cases (all outlined, the same 85 s of one core) 600 steps of one patch reached Dice 0.861, 300 steps of two 0.853.
_SMALL, _MEDIUM, _LARGE = (8, 16, 32, 64), (16, 32, 64, 128), (32, 64, 128, 256)
_RESENC_M = (32, 64, 128, 256, 320, 320)
_RESENC_M_BLOCKS = (1, 3, 4, 6, 6, 6)
BUDGETS = {
    "cpu": {
        "quick": Budget(_SMALL, (), 50_000, 4e6, 600, 1, 3e-3, 0, 0, measured="Dice 0.85 to 0.87"),
        "standard": Budget(_MEDIUM, (), 50_000, 4e6, 1_000, 1, 3e-3, 0, 5, measured="Dice 0.87"),
        "thorough": Budget(_MEDIUM, (), 50_000, 4e6, 8_000, 1, 3e-3, 0, 120),
    },
    "mps": {
        "quick": Budget(_SMALL, (), 50_000, 8e6, 1_000, 1, 3e-3, 2, 0),
        "standard": Budget(_MEDIUM, (), 100_000, 8e6, 3_000, 1, 3e-3, 2, 5),
        "thorough": Budget(_LARGE, (), 200_000, 2e7, 10_000, 1, 2e-3, 2, 120),
    },
    "cuda": {
        "quick": Budget(_LARGE, (), 128**3, 6e7, 1_500, 2, 1e-3, 4, 0, 0.0),
        "standard": Budget(_RESENC_M, _RESENC_M_BLOCKS, 128**3, 6e7, 15_000, 2, 1e-3, 4, 30, 0.0, 3.9e9),
        "thorough": Budget(_RESENC_M, _RESENC_M_BLOCKS, 160**3, 6e7, 60_000, 2, 1e-3, 4, 240, 0.0, 3.9e9),
    },
}


def choose_effort(device: str, effort: str | None, minutes: float | None) -> str:
    """The effort asked for; else the one that makes most of the time given; else ``standard``.

    Raises:
        InputError: There is no such effort.
    """
    if effort is not None:
        if effort not in EFFORTS:
            raise InputError(f"There is no effort {effort!r}.", f"Choose one of: {', '.join(EFFORTS)}.")
        return effort
    if minutes is None:
        return "standard"
    fitting = [name for name, budget in budgets_of(device).items() if budget.from_minutes <= minutes]
    return fitting[-1] if fitting else EFFORTS[0]


def budgets_of(device: str) -> dict[str, Budget]:
    """Effort -> budget of a kind of device (``"cpu"``, ``"mps"``, ``"cuda"``)."""
    return BUDGETS.get(device, BUDGETS["cuda"])
