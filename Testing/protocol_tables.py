# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/worker-protocol.md, made from ``barl.worker.messages``.

python3 Testing/protocol_tables.py            compare: exit code 1 if the document differs
python3 Testing/protocol_tables.py --write    write them anew
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENT = REPOSITORY / "docs" / "worker-protocol.md"
_BLOCK = "<!-- {name}: made by Testing/protocol_tables.py -->\n{table}\n<!-- end of {name} -->"


def tables() -> dict[str, str]:
    """Name of a table -> its Markdown."""
    sys.path.insert(0, str(REPOSITORY / "BARLSegmentation"))
    from barl.worker import messages

    requests = [("request", "what it does", "parameters (default)", "answer")]
    for kind in messages.REQUESTS:
        name = f"`{kind.name}`" + (" *quick*" if kind.quick else "")
        requests.append((name, _text(kind), _fields(kind, defaults=True), f"`{kind.answer.__name__}`"))
    answers = [("object", "what it says", "fields")]
    answered = {kind.answer for kind in messages.REQUESTS}
    for kind in vars(messages).values():
        isRequest = isinstance(kind, type) and issubclass(kind, messages.Request)
        if dataclasses.is_dataclass(kind) and not isRequest:
            mark = "" if kind in answered else " (part)"
            answers.append((f"`{kind.__name__}`{mark}", _text(kind), _fields(kind, defaults=False)))
    return {"requests": _table(requests), "answers": _table(answers)}


def in_document(text: str, name: str) -> str:
    """The table of that name as the document has it."""
    return _pattern(name).search(text)["table"]


def write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in tables().items():
        block = _BLOCK.format(name=name, table=table)
        text = _pattern(name).sub(lambda _match, block=block: block, text)
    DOCUMENT.write_text(text, encoding="utf-8")


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(_BLOCK).replace(r"\{name\}", name).replace(r"\{table\}", "(?P<table>.*?)"), re.DOTALL)


def _text(kind: type) -> str:
    return re.sub(r"\s+", " ", kind.__doc__ or "").strip().replace("``", "`")


def _fields(kind: type, defaults: bool) -> str:
    from barl.worker.typed_json import hints

    words = []
    for field in dataclasses.fields(kind):
        word = f"`{field.name}`: {_type(hints(kind)[field.name])}"
        if defaults and field.default is not dataclasses.MISSING:
            default = json.dumps(field.default)
            word = f"{word.removesuffix(' or null')} ({default})"
        words.append(word)
    return ", ".join(words)


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"list of ({_type(arguments[0])})" if typing.get_args(arguments[0]) else f"list of {_type(arguments[0])}"
    if origin is dict:
        return "object" if arguments[1] is Any else f"object of {_type(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    return _WORDS.get(hint) or f"`{hint.__name__}`"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def main() -> int:
    if "--write" in sys.argv[1:]:
        write()
        return 0
    text = DOCUMENT.read_text(encoding="utf-8")
    return int(any(in_document(text, name) != table for name, table in tables().items()))


if __name__ == "__main__":
    sys.exit(main())
