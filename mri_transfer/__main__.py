"""The command ``mri-transfer``, and ``python -m mri_transfer``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; see :func:`mri_transfer.cli.main`. An interrupt while that is imported is one line, too."""
    try:
        from mri_transfer.cli import main as run
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
