# SPDX-License-Identifier: Apache-2.0
"""Statistics of scores: means with the number of cases, paired tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from barl.errors import InputError
from barl.evaluation.metrics import DISTANCES, RATIOS, LabelMetrics


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of the ``n`` values that are defined (nan when n is too small for them)."""

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "undefined"
        return f"{self.mean:.3f}" if self.n == 1 else f"{self.mean:.3f} ± {self.sd:.3f}"


def summarize(values: Sequence[float]) -> Summary:
    """Summarize values; nan means undefined, is left out and does not count in ``n``."""
    defined = np.asarray(values, dtype=float)
    defined = defined[~np.isnan(defined)]
    return Summary(
        float(defined.mean()) if defined.size else float("nan"),
        float(defined.std(ddof=1)) if defined.size > 1 else float("nan"),
        int(defined.size),
    )


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the mean by Student's t; nan, nan with fewer than two values (nan values are left out)."""
    summary = summarize(values)
    if summary.n < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf((1 + level) / 2, summary.n - 1)) * summary.sd / summary.n**0.5
    return summary.mean - half, summary.mean + half


def summarize_cases(
    cases: Sequence[Mapping[int, LabelMetrics]], values: Collection[int] | None = None
) -> dict[str, Summary]:
    """Summarize each metric over cases.

    A case's score is the mean over those of its labels in which the metric is defined; the summary is over the cases
    that have a score. So every case counts once, however many labels it shows.

    Args:
        cases: Per case what ``segmentation_metrics`` returned.
        values: Label values to include; all if None. Pass one to summarize that label.

    Returns:
        Metric name -> summary, for all of ``metrics.RATIOS`` and ``metrics.DISTANCES``.
    """
    return {
        name: summarize(
            [summarize([getattr(metrics, name) for metrics in _chosen(case, values)]).mean for case in cases]
        )
        for name in RATIOS + DISTANCES
    }


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test: two-sided p, median of (first - second), number of pairs."""

    p: float
    median_difference: float
    n: int


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Test whether two methods differ on the same cases.

    Pairs with a nan on either side are left out; pairs without a difference take part in the ranking (Pratt).

    Raises:
        InputError: The two lists differ in length.
    """
    if len(first) != len(second):
        raise InputError(
            f"{len(first)} and {len(second)} scores cannot be paired.", "Compare both methods on the same cases."
        )
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        return PairedTest(float("nan"), float("nan"), 0)
    # Without any difference the statistic is 0/0, though the answer is plain.
    p = float(stats.wilcoxon(difference, zero_method="pratt").pvalue) if np.any(difference) else 1.0
    return PairedTest(p, float(np.median(difference)), int(difference.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for several comparisons (Holm 1979); a nan is no comparison and stays nan."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)), 1)
    return adjusted.tolist()


def _chosen(case: Mapping[int, LabelMetrics], values: Collection[int] | None) -> list[LabelMetrics]:
    return [metrics for value, metrics in case.items() if values is None or value in values]
