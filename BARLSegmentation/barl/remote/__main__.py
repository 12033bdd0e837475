# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.remote ADDRESS [PYTHON]``: a worker whose predictions and trainings another computer computes."""

from __future__ import annotations

import sys
from typing import Any

from barl.worker.streams import serve


def main() -> int:
    def handlers() -> dict[Any, Any]:
        from barl.remote.computer import Computer
        from barl.remote.near import NearHandlers
        from barl.worker.requests import handlers as of

        return of(NearHandlers(Computer(*sys.argv[1:3])))

    serve(handlers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
