"""Addresses without secrets: a name and password, or a signed query."""

from __future__ import annotations

import urllib.parse

import requests.auth


def split_credentials(address: str) -> tuple[str, requests.auth.HTTPBasicAuth | None]:
    """An address without its name and password, and those, if any.

    Raises:
        ValueError: it is not an address.
    """
    parts = urllib.parse.urlsplit(address)
    if "@" not in parts.netloc:
        return address, None
    credentials, _, host = parts.netloc.rpartition("@")
    name, _, password = credentials.partition(":")
    auth = requests.auth.HTTPBasicAuth(urllib.parse.unquote(name), urllib.parse.unquote(password))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), auth


def shown(address: str) -> str:
    """An address fit to show or store: without credentials, query and fragment, which may be signatures or tokens."""
    try:
        parts = urllib.parse.urlsplit(split_credentials(address)[0])
    except ValueError:
        return "an address that can't be read"
    plain = urllib.parse.urlunsplit(parts._replace(query="", fragment=""))
    return plain if "//" in plain else plain.rpartition("@")[2]
