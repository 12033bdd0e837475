# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.cli``: the same as the installed command ``barl``."""

import sys

from barl.cli import main

sys.exit(main())
