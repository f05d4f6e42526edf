"""``python -m griffin_core`` is the ``griffin`` command."""

from __future__ import annotations

import sys

from griffin_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
