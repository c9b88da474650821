"""``python -m mri_transfer`` is the command ``mri-transfer``."""

import sys

from mri_transfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
