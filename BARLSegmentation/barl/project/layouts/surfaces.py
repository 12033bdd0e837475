# SPDX-License-Identifier: Apache-2.0
"""Surfaces of outlined structures as STL and OBJ files.

The surface lies half-way between voxels inside and outside (marching cubes, Lorensen and Cline, 1987) and is not
smoothed: it encloses what was outlined. Points are LPS millimeters, which the files say in the way that Slicer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from barl.errors import InputError
from barl.images.components import bounding_box
from barl.images.geometry import Grid
from barl.project.files import write_atomically

_HEADER = b"BARL, millimeters; SPACE=LPS"
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("attribute", "<u2")])


def load_marching_cubes() -> Callable:
    """The function of scikit-image.

    Raises:
        InputError: The package is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise InputError(
            "Surfaces need the package scikit-image, which is not installed.",
            "Install it: pip install barl-segmentation[exchange]; in Slicer's Python console: "
            "slicer.util.pip_install('scikit-image').",
        ) from None
    return marching_cubes


def surface(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface of a mask.

    Args:
        mask: ``[k, j, i]``, with at least one voxel.
        grid: Where its voxels lie.

    Returns:
        Points ``[n, 3]`` (LPS, mm, float64) and triangles ``[m, 3]`` of their numbers, counterclockwise seen from
        outside.

    Raises:
        InputError: The package scikit-image is not installed.
    """
    marching_cubes = load_marching_cubes()
    box = bounding_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    padded = np.pad(mask[box].astype(np.float32), 1)
    places, triangles, _, _ = marching_cubes(padded, 0.5, allow_degenerate=False)
    start = np.array([part.start for part in box]) - 1
    points = grid.index_to_mm((places.astype(np.float64) + start)[:, ::-1])
    if enclosed_ml(points, triangles) < 0:
        triangles = triangles[:, ::-1]
    return points, triangles


def enclosed_ml(points: np.ndarray, triangles: np.ndarray) -> float:
    """The signed volume inside a closed surface: positive if its triangles turn counterclockwise seen from outside."""
    a, b, c = (points[triangles[:, n]] - points.mean(axis=0) for n in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6000.0


def write_stl(points: np.ndarray, triangles: np.ndarray, path: Path) -> None:
    """Write a binary STL file.

    Raises:
        StorageError: The disk is full or read-only.
    """
    records = np.zeros(len(triangles), _TRIANGLE)
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    records["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
    records["points"] = corners
    content = _HEADER.ljust(80, b" ") + np.uint32(len(triangles)).tobytes() + records.tobytes()
    write_atomically(path, lambda place: place.write_bytes(content))


def write_obj(points: np.ndarray, triangles: np.ndarray, path: Path) -> None:
    """Write an OBJ file.

    Raises:
        StorageError: The disk is full or read-only.
    """
    lines = [f"# {_HEADER.decode()}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    write_atomically(path, lambda place: place.write_text("\n".join(lines) + "\n", encoding="ascii"))


WRITERS: dict[str, Callable[[np.ndarray, np.ndarray, Path], None]] = {"stl": write_stl, "obj": write_obj}
