# SPDX-License-Identifier: Apache-2.0
"""Damage that knows structure: bytes, numbers, lines of text and JSON values, as accidents change them."""

from __future__ import annotations

import copy
import random
from typing import Any

NUMBERS = [0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, -(2**31)]
WORDS = ["", "0", "-1", "nan", "inf", "-inf", "1e999", "1e-300", "true", "\0", "x" * 300]
WORDS += ["../../etc/passwd", "%d", "\u00e9\u202e", "[", "1 2 3 4"]
VALUES: list[Any] = [None, True, False, [], {}, "", "nan", -1, 0, 1.5, 10**30, "x" * 500, [[]], {"a": 1}]


def damaged_bytes(content: bytes, rng: random.Random, start: int = 0) -> bytes:
    """Flip, overwrite, remove, insert or cut off bytes behind ``start``."""
    data = bytearray(content)
    if len(data) <= start:
        return content
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place = rng.randrange(start, max(start + 1, len(data)))
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif kind == 2:
            del data[place : place + rng.choice((1, 2, 4, 16))]
        elif kind == 3:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 4, 16))))
        elif kind == 4:
            del data[place:]
        else:
            data += bytes(rng.randrange(64))
    return bytes(data)


def damaged_text(text: str, rng: random.Random) -> str:
    """Change words and lines of a text header."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2))):
        n = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0:
            del lines[n]
        elif kind == 1:
            lines.insert(n, lines[rng.randrange(len(lines))] if lines else "")
        elif kind == 2:
            lines[n] = lines[n][: rng.randrange(len(lines[n]) + 1)]
        else:
            words = lines[n].split(" ")
            words[rng.randrange(len(words))] = rng.choice((str(rng.choice(NUMBERS)), rng.choice(WORDS)))
            lines[n] = " ".join(words)
        lines = lines or [""]
    return "\n".join(lines)


def damaged_json(value: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, removed, doubled or renamed."""
    result = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(result))
        if not places:
            return rng.choice(VALUES)
        home, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del home[key]
        elif kind == 1 and isinstance(home[key], int | float):
            home[key] = rng.choice(NUMBERS)
        elif kind == 2 and isinstance(home[key], str):
            home[key] = rng.choice(WORDS)
        elif kind == 3 and isinstance(home, dict):
            home[rng.choice(WORDS)] = home.pop(key)
        elif kind == 3:
            home.insert(key, copy.deepcopy(home[key]))
        else:
            home[key] = copy.deepcopy(rng.choice(VALUES))
    return result


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield value, key
        yield from _places(part)
