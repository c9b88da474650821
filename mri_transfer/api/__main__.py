"""Writes the signatures of the API for editors and type checkers: `python -m mri_transfer.api`."""

import sys
from pathlib import Path

from mri_transfer.api.signatures import stub

STUB = Path(__file__).with_name("__init__.pyi")

if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    sys.stderr.write(f"{STUB}\n")
