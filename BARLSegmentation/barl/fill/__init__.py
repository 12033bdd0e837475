# SPDX-License-Identifier: Apache-2.0
"""A few outlined planes become a whole outline, and one corrected plane corrects a whole prediction.

The method is the random walker (L. Grady, "Random walks for image segmentation", IEEE TPAMI 28(11), 2006) with priors
(L. Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005). Its edges do not compare gray
values but what a small classifier makes of them, which learns from the drawn voxels of the same scan (``appearance``);
between close planes the interpolated distance map pulls as well (``shape``). Nothing else is learned and nothing is
downloaded: numpy, scipy and SimpleITK suffice.
"""
