# SPDX-License-Identifier: Apache-2.0
"""The text of docs/few-slices.md, from the figures of few_slices.py."""

from __future__ import annotations

from typing import Any

METHODS = ("fill", "GrowCut", "distance map", "ITK interpolation")
TITLES = {"hippocampus": "Hippocampus, MR", "sts_pet": "Soft-tissue sarcoma, PET", "bonbid_hie": "BONBID-HIE, MR"}
AIMS = {"hippocampus": {"1+1+1": 0.86, "3+3+3": 0.93}, "sts_pet": {"1+1+1": 0.90, "3+3+3": 0.95}}

_HEAD = """\
# A few drawn planes make an outline

This page is written by `Testing/Benchmarks/few_slices.py`. A person outlines a few planes, in any of the three
directions; `barl fill` makes the rest. The method is a random walker (Grady 2006) on what a classifier, learned from
the drawn voxels of the same scan, makes of gray values and places. Nothing else is learned, and no graphics card is
needed.

    barl fill scan.nii.gz drawn.nii.gz --output whole.nii.gz
    barl fill scan.nii.gz drawn.nii.gz --output whole.nii.gz --drawn mask.nii.gz --uncertainty unsure.nii.gz
    barl fill scan.nii.gz drawn.nii.gz --output whole.nii.gz --drawn mask.nii.gz --prior predicted.nii.gz
    barl fill scans/ drawn/ --output whole/

* A plane counts as drawn whole, with its background, if an area is labeled in it. `--drawn` says it instead: every
  voxel of that mask is as it was drawn, labeled or empty. An empty plane in the mask says "nothing here".
* `--prior` is a model's label map. The drawn planes measure how right it was there, and it pulls accordingly.
* The answer names the plane whose outlining would settle most and, for one structure in one piece that is outlined
  without a prediction, the Dice to expect now and with the planes that are worth it (section *Minutes*).

In Python:

    from barl.fill.expectation import expect
    from barl.fill.filling import Prediction, fill_scan
    from barl.fill.next_plane import next_plane

    filled = fill_scan([scan], labels, spacing_kji, drawn)       # arrays [k, j, i], spacing in mm
    filled.labels, filled.probability(1), filled.uncertainty()
    plane = next_plane(filled, drawn)                            # plane.axis, plane.index, plane.settles
    expect(filled, drawn, plane)                                 # .dice, .planes worth outlining, .dice_after; or None

## How it was measured

Planes lie at fixed parts of the structure's extent; n of them at 1/(n+1), 2/(n+1) ... Every k-th axial slice starts
with the first slice of the structure and ends with the last. Planes are cut out of the expert's outline, so **a
simulated reader draws without error, and always where the structure is: real readers will be worse.** All labels
count as one structure. The numbers of the method were chosen on 14 hippocampi and 12 tumors of the training parts,
the pull of a prediction on 10 hippocampi of that part; the tables show other subjects (hippocampus: tuning part; PET
and BONBID-HIE: tuning and test part, in this order). ITK interpolation is the algorithm of Slicer's *Fill between
slices*, GrowCut that of *Grow from seeds*; it gets the same planes, background included, and the same box.

The tables were made twice. After the first time two things were changed: with at most one plane of a direction the box
is solved coarser (chosen on the 14 hippocampi; hippocampus, 1+1+1: 0.827 before), and the pull of the distance map
counts planes instead of millimeters (not chosen on other scans; BONBID-HIE, every 3rd slice: 0.649
before, 2+2+2: 0.725).
"""


_COMMANDS = """\
## Machine

One core of a shared {machine} server, OMP_NUM_THREADS=1. Seconds are computing time.

What the module waits for (fill, hot-spots, expectation) takes 0.03 to 0.16 s on the scans of the three sets, 0.63 s on
an organ of 0.2 million voxels and 1.3 s on one of 0.5 million: only the first follow each stroke (limit 0.5 s). A CT of
512 x 512 x 400 with a box of 13 million voxels takes 4.6 to 5.5 s and 770 MiB beyond the scan (aim 1 GiB: met). These
figures are processor time beside some twenty other processes on two cores.

The fill alone, on an idle AMD EPYC of two cores, on balls in noise (those of `Testing/Python/test_fill.py`), one
thread, wall time equal to processor time: a box of 13.6 million voxels 3.11 s at the first call of a process, then 2.0,
1.6 and 2.1 s (aim: 3 s for 10 million, met); a box of 0.53 million 0.14 s in each of four calls (aim: 0.3 s for 0.5
million, met).

    B=Testing/Benchmarks/few_slices.py
    python $B --scans 20 --sets hippocampus > hippocampus.json
    python $B --scans 16 --sets sts_pet > sts_pet.json
    python $B --scans 8 --sets bonbid_hie > bonbid_hie.json
    python $B --scans 10 --sets --model BARLSegmentation/Resources/Models/hippocampus > spread.json
    python $B --sets --join hippocampus.json sts_pet.json bonbid_hie.json spread.json --document docs/few-slices.md
"""


def document(result: dict[str, Any]) -> str:
    parts = [_HEAD]
    for name, found in result["sets"].items():
        parts.append(_set_table(name, found))
    parts.append(_aims(result))
    if result["spread"]:
        parts.append(_spread_table(result["spread"]))
    parts.append(_COMMANDS.format(machine=result["machine"]))
    return "\n".join(parts)


def _set_table(name: str, found: dict[str, Any]) -> str:
    methods = [m for m in METHODS if any(m in row for row in found["planes"].values())]
    lines = [
        f"## {TITLES.get(name, name)}: {found['scans']} scans",
        "",
        f"Mean Dice. A fill takes {found['seconds_median']} s (median).",
        "",
        f"| planes (axial + coronal + sagittal) | drawn, mean | {' | '.join(methods)} |",
        f"|---|---:|{'---:|' * len(methods)}",
    ]
    for planes, row in found["planes"].items():
        best = max(row[m] for m in methods if m in row)
        cells = ["" if m not in row else f"**{row[m]:.3f}**" if row[m] == best else f"{row[m]:.3f}" for m in methods]
        lines.append(f"| {planes} | {row['planes']:.1f} | {' | '.join(cells)} |")
    if name == "bonbid_hie":
        lines += [
            "",
            "Scattered lesions are what planes cannot do: a lesion that no drawn plane meets is not found, and planes "
            "at fixed parts of the extent of all lesions meet few of them.",
        ]
    return "\n".join(lines) + "\n"


def _aims(result: dict[str, Any]) -> str:
    lines = ["## Aims", "", "| aim | measured | |", "|---|---:|---|"]
    for name, aims in AIMS.items():
        for planes, aim in aims.items():
            if name in result["sets"]:
                value = result["sets"][name]["planes"][planes]["fill"]
                met = "met" if value >= aim else "missed"
                lines.append(f"| {TITLES[name]}, {planes}: {aim:.2f} | {value:.3f} | {met} |")
    for name, found in result["sets"].items():
        for planes, row in found["planes"].items():
            if planes.startswith("every"):
                rival = max((m for m in METHODS[1:] if m in row), key=lambda m: row[m])
                met = "met" if row["fill"] >= row[rival] else "missed"
                lines.append(
                    f"| {TITLES[name]}, {planes}: not below {rival} ({row[rival]:.3f}) | {row['fill']:.3f} | {met} |"
                )
    return "\n".join(lines) + "\n"


def _spread_table(spread: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        "## Spreading a correction",
        "",
        "Hippocampus, the model that comes along. A weak model is the same one on scans with noise (standard",
        "deviations of the scan); the correction sees the scan without it. Each plane is the one that `next_plane`",
        "proposes (the first: the largest sum of the model's uncertainty).",
        "",
        "| noise | | start | 1 plane | 2 | 3 | 4 | 6 |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for noise, rows in spread.items():
        for row, values in rows.items():
            lines.append(f"| {noise} | {row} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines) + "\n"
