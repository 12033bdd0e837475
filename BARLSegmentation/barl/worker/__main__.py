# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.worker``: serve requests on standard input, events on standard output."""

from __future__ import annotations

import sys
from typing import Any

from barl.worker.streams import serve


def main() -> int:
    def handlers() -> dict[Any, Any]:
        from barl.worker.requests import handlers as all_handlers

        return all_handlers()

    serve(handlers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
