# SPDX-License-Identifier: Apache-2.0
"""Which channel a file is of, as its name says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from barl.errors import InputError
from barl.project.labels import Channel
from barl.project.scans import stem

SEEN = "The files were matched to the channels by the names of the channels in them."


def seen_patterns(names: Sequence[str], channels: Sequence[Channel]) -> list[Channel]:
    """The channels with the patterns that the files' names show.

    Every name must end with the name of a channel after a ``_``, ``-`` or ``.``; otherwise the user is asked.

    Args:
        names: Of the files, without endings.
        channels: The project's; some have no pattern.

    Raises:
        InputError: The names do not show it; the remedy is the nearest reading.
    """
    endings = defaultdict(set)
    for name in names:
        if match := re.fullmatch(r"(.+)([_.-][^_.-]+)", name):
            endings[match[2]].add(match[1])
    found = []
    for channel in channels:
        own = [ending for ending in endings if ending[1:].casefold() == channel.name.casefold()]
        found.append(replace(channel, pattern=channel.pattern or own[0]) if own or channel.pattern else channel)
    if all(channel.pattern for channel in found):
        return found
    message = "The project has several channels, but not for all of them the text in the names of their files."
    # As many endings as channels, each in nearly as many files: these tell the channels apart.
    common = sorted(ending for ending, stems in endings.items() if 2 * len(stems) * len(channels) > len(names))
    if len(common) != len(channels):
        one = channels[0].name
        raise InputError(
            message, f'Give it for each channel, such as "barl project channels PROJECT --pattern {one}=_{one}".'
        )
    pairs = " --pattern ".join(f"{channel.name}={ending}" for channel, ending in zip(channels, common, strict=True))
    raise InputError(
        f"{message} The names end with {', '.join(common)}.",
        f'If this is their order: "barl project channels PROJECT --pattern {pairs}".',
    )


def check_order(files: Sequence[Path], channels: Sequence[Channel]) -> None:
    """Refuse files whose names say that they are of other channels than they are given for.

    Nothing is refused unless each name holds exactly one channel's name or pattern as a word.

    Args:
        files: One for each channel, in their order.
        channels: Those of the project or model.

    Raises:
        InputError: The names contradict the order.
    """
    said = [n for path in files if (n := _said(stem(path).casefold(), channels)) is not None]
    if not len(said) == len(files) == len(channels):
        return
    wrong = next((n for n, channel in enumerate(said) if channel != n), None)
    if wrong is None:
        return
    meant = sorted(zip(said, (path.name for path in files), strict=True))
    order = "one for each channel, in this order: " + ", ".join(channel.name for channel in channels)
    if len(set(said)) == len(said):
        order = "in this order: " + " ".join(name for _, name in meant)
    given, named = channels[wrong].name, channels[said[wrong]].name
    raise InputError(
        f"'{files[wrong].name}' is given as the channel {given}, but its name says {named}.",
        f"Give the files {order}; rename them if their names are wrong.",
    )


def _said(name: str, channels: Sequence[Channel]) -> int | None:
    """The only channel whose name or pattern is a word of a name, and no part of another's (T1 in T1-Gd)."""
    found = []
    for number, channel in enumerate(channels):
        for text in filter(None, {channel.name.casefold(), channel.pattern.casefold()}):
            start = name.find(text)
            while start >= 0:
                if is_word(name, start, start + len(text)):
                    found.append((start, start + len(text), number))
                start = name.find(text, start + 1)
    whole = {
        number
        for start, stop, number in found
        if not any(a <= start and stop <= b and b - a > stop - start for a, b, _ in found)
    }
    return whole.pop() if len(whole) == 1 else None


def is_word(name: str, start: int, stop: int) -> bool:
    """Whether letters or digits do not go on at either end of a part of a name."""
    before, after = name[:start][-1:], name[stop:][:1]
    return not (before.isalnum() and name[start].isalnum()) and not (after.isalnum() and name[stop - 1].isalnum())
