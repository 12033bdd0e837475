# SPDX-License-Identifier: Apache-2.0
"""Sections of a page that several scripts write."""

from __future__ import annotations

from pathlib import Path


def replace_section(document: Path, text: str) -> None:
    """Put a section in the place of the one with the same heading, or at the end of the page.

    Args:
        document: Markdown; made if it is missing.
        text: The section; its first line is the heading, ``## ...``.
    """
    page = document.read_text(encoding="utf-8") if document.exists() else ""
    heading = text.split("\n", 1)[0]
    before, found, rest = page.partition(f"{heading}\n")
    _, more, after = rest.partition("\n## ") if found else ("", "", "")
    before = before.rstrip("\n") + "\n\n" if before else ""
    document.write_text(before + text.rstrip("\n") + "\n" + (f"\n## {after}" if more else ""), encoding="utf-8")
