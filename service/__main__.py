"""``unet-service``, and ``python -m service``."""

from __future__ import annotations

import sys

from model.interrupts import ended_at_once
from service.interrupts import TERMINATED, stopped_at_once


def main() -> int:
    """Run one command, as :func:`service.cli.main` does; interrupted while that is still imported, end in order."""
    serves = sys.argv[1:2] == ["serve"]  # other commands have not done what they were to do
    with ended_at_once("unet-service"), stopped_at_once(0 if serves else TERMINATED):
        from service import cli  # and a command, which takes seconds: an interrupt would show its imports

        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
