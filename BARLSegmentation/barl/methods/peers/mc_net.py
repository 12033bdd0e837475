# SPDX-License-Identifier: Apache-2.0
"""MC-Net+ (Wu et al., Medical Image Analysis 2022): mutual consistency of three decoders on one encoder.

    L = 0.5 sum_i L_sup(i) + 1.0 ramp sum_{i != j} mean (p_i - sharpen(p_j))^2   on all patches

The decoders differ in their up-sampling: transposed convolution, trilinear, nearest. Defaults from MC-Net's code:
sharpening T = 0.1, weight 1.0 with a ramp over 40 "epochs" of 150 of its 15,000 iterations. The sharpened side has a
gradient as well, as there. One encoder can see one view at a time: weak and strong take turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

from torch import Tensor

from barl.losses.consistency import sharpen, squared_difference
from barl.losses.overlap import one_hot
from barl.methods.base import Batch, Ramped, add_up
from barl.methods.peers.each_branch import SCALE_DECAY
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.networks.branches import Network


@dataclass(frozen=True)
class Settings:
    """Attributes: weight: of the consistency; ramp: its length as a share of all iterations; temperature: of the
    sharpening; supervision: weight of each decoder's supervised term."""

    weight: float = 1.0
    ramp: float = 0.4
    temperature: float = 0.1
    supervision: float = 0.5


class MutualConsistency(Ramped[Settings]):
    """Three decoders agree with each other's sharpened predictions."""

    name = "mc_net_plus"
    title = "MC-Net+"
    settings_class = Settings
    takes_partial = True

    def network_options(self) -> dict[str, Any]:
        upsampling = ("deconv", "linear", "nearest")
        return {"n_branches": 3, "shared_encoder": True, "upsampling": upsampling, "residual": (False,)}

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        s, outlined = self.settings, batch.outlined()
        outputs = network.views(batch.strong if iteration % 2 else batch.weak)
        log_p = [[outlined.first(scale) for scale in output.log_probabilities()] for output in outputs]
        target, scales = one_hot(outlined.label, log_p[0][-1].shape[1]), scale_weights(len(log_p[0]), SCALE_DECAY)
        supervised = multi_scale_supervision(log_p, target, scales, outlined.voxels)
        p = [branch[-1].exp() for branch in log_p]
        sharp = [sharpen(one, s.temperature) for one in p]
        mutual = add_up(squared_difference(p[i], sharp[j]) for i, j in permutations(range(len(p)), 2))
        total_loss = len(p) * s.supervision * supervised + self.consistency_weight(iteration, total) * mutual
        return {"total": total_loss, "supervised": supervised, "mutual": mutual}
