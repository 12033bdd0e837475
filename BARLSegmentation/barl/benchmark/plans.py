# SPDX-License-Identifier: Apache-2.0
"""Benchmark plans: from a file, or one of those that come along (folder ``named``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barl.benchmark.harness import arms_of, runs_of
from barl.errors import InputError

NAMED = Path(__file__).with_name("named")


def named_plans() -> dict[str, Path]:
    """The plans that come along, by name."""
    return {path.stem: path for path in sorted(NAMED.glob("*.json"))}


def read_plan(name: str | Path) -> dict[str, Any]:
    """A plan, its ``tables`` filled in where it has none: one per data set and label count, with all arms.

    Args:
        name: A JSON file, or a name of ``named_plans``.

    Raises:
        InputError: There is no such plan, or it is not as it should be.
    """
    path = Path(name)
    if not path.is_file():
        path = named_plans().get(str(name), path)
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        runs_of(plan)
        blocks = [{**block, "arms": arms_of(block)} for block in plan["runs"]]
        baseline = plan.get("baseline", "supervised")
        plan.setdefault(
            "tables", [{**block, "baseline": baseline} for block in blocks if None not in block["labelled"]]
        )
        plan["tables"] = [{**block, "arms": arms_of(block)} for block in plan["tables"]]
    except OSError as error:
        raise InputError(
            f"The benchmark plan {str(name)!r} cannot be read ({error.strerror}).",
            f"Name a JSON file or one of: {', '.join(named_plans())}.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The benchmark plan {path.name} is not as docs/benchmark-plan.json is ({error!r}).", "Correct it."
        ) from error
    return plan


def sources_of(plan: dict[str, Any], data: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Where the data sets lie: as the plan says, then as the command line says (``NAME=FOLDER``).

    Raises:
        InputError: Not of that form, or of a data set that the plan does not use.
    """
    used = {run.dataset for run in runs_of(plan)}
    sources = {name: dict(source) for name, source in plan.get("datasets", {}).items()}
    for text in data:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise InputError(f"'{text}' does not say where a data set lies.", "Write it as NAME=FOLDER.")
        if name not in used:
            raise InputError(f"The plan has no data set {name!r}.", f"It has: {', '.join(sorted(used))}.")
        sources.setdefault(name, {})["folder"] = folder
    return sources
