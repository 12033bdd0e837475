# SPDX-License-Identifier: Apache-2.0
"""Cross Pseudo Supervision (Chen et al., CVPR 2021), as in SSL4MIS' 3D code.

    L = mean over branches b of  L_sup + 0.1 ramp CE(z_b, argmax p_other)   on untouched patches

Defaults from SSL4MIS: weight 0.1 with a ramp over 200 "epochs" of 150 iterations, that is over a whole run of 30,000.
BARL with ``parts=["cps"]`` is another thing: Dice as well, weight 1, CutMix, exchanged views.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from barl.losses.overlap import cross_entropy, hard_label, one_hot
from barl.methods.base import Batch, Ramped, add_up
from barl.methods.peers.each_branch import SCALE_DECAY
from barl.methods.supervised import multi_scale_supervision, scale_weights
from barl.networks.branches import Network


@dataclass(frozen=True)
class Settings:
    """Attributes: weight: of the cross term; ramp: its length as a share of all iterations."""

    weight: float = 0.1
    ramp: float = 1.0


class CrossPseudoSupervision(Ramped[Settings]):
    """Two networks teach each other by their hard labels."""

    name = "cps"
    title = "CPS"
    settings_class = Settings
    takes_partial = True

    def loss(self, network: Network, batch: Batch, iteration: int, total: int) -> dict[str, Tensor]:
        outlined, count = batch.outlined(), len(batch.weak)
        outputs = [network.scales(view, branch) for branch, view in enumerate((batch.weak, batch.strong))]
        log_p = [[outlined.first(scale) for scale in output.log_probabilities()] for output in outputs]
        n_scales, n_classes = len(log_p[0]), log_p[0][-1].shape[1]
        truth = one_hot(outlined.label, n_classes)
        supervised = multi_scale_supervision(log_p, truth, scale_weights(n_scales, SCALE_DECAY), outlined.voxels)
        losses = {"total": supervised, "supervised": supervised}
        if len(outlined) < count or outlined.open_voxels is not None:
            one, two = (outlined.untouched(branch[-1]) for branch in log_p)
            pairs, unseen = ((one, two), (two, one)), outlined.unseen(count)
            cross = add_up(0.5 * cross_entropy(a, one_hot(hard_label(b), n_classes), unseen) for a, b in pairs)
            losses["total"] = supervised + self.consistency_weight(iteration, total) * cross
            losses["cross"] = cross
        return losses
