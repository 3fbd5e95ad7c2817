"""``unet-train``, and ``python -m training``."""

from __future__ import annotations

import sys

from model.interrupts import ended_at_once


def main() -> int:
    """Run one command, as :func:`training.cli.main` does; interrupted while that is still imported, end in order."""
    with ended_at_once("unet-train"):
        from training import cli  # an interrupt would show its imports
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
