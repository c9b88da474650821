"""The one error that users can fix themselves."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Bad input: one line that names the file or option and the remedy.

    The command line prints it without a traceback and exits with code 2.

    Attributes:
        details: more for programs; `--json` writes it beside the error.
    """

    def __init__(self, text: str = "", details: dict[str, Any] | None = None):
        super().__init__(text)
        self.details = details or {}
