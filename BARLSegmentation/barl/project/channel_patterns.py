# SPDX-License-Identifier: Apache-2.0
"""By which part of their names the files of several channels are told apart, where the project does not say it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from barl.errors import InputError
from barl.project.labels import Channel

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
