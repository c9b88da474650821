"""The user's own Kaggle token, from where Kaggle's client keeps it."""

from __future__ import annotations

import os
from pathlib import Path

import requests

from mri_transfer.errors import UserError
from mri_transfer.storage.files import read_object

HOW = (
    "make a token at https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN (or KAGGLE_USERNAME and "
    "KAGGLE_KEY, or ~/.kaggle/kaggle.json), or download the zip in a browser and pass --zip FILE"
)


class Bearer(requests.auth.AuthBase):
    """A token in the Authorization header. On a redirect to another host, requests drops it."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def credentials() -> requests.auth.AuthBase:
    """The credentials Kaggle's client would use: a token, or a name and key, from the environment or its folder.

    Raises:
        UserError: there is none, or its file can't be read.
    """
    if token := os.environ.get("KAGGLE_API_TOKEN", "").strip():
        return Bearer(token)
    name, key = os.environ.get("KAGGLE_USERNAME", ""), os.environ.get("KAGGLE_KEY", "")
    if name and key:
        return requests.auth.HTTPBasicAuth(name, key)
    for folder in _folders():
        token_file, pair = folder / "access_token", folder / "kaggle.json"
        try:
            if token_file.is_file() and (token := token_file.read_text(encoding="utf-8").strip()):
                return Bearer(token)
            if pair.is_file():
                account = read_object(pair, {"username": str, "key": str})
                return requests.auth.HTTPBasicAuth(account["username"], account["key"])
        except (OSError, ValueError, UserError):
            raise UserError(f"{folder}: holds no readable Kaggle token; {HOW}") from None
    raise UserError(f"tumors: comes from Kaggle, which needs your own token; {HOW}")


def _folders() -> list[Path]:
    """Where Kaggle's client looks, in order."""
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        return [Path(folder)]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path.home() / ".kaggle", config / "kaggle"]
