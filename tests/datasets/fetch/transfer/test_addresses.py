"""Addresses are shown and kept without names, passwords and signatures."""

import pytest

from mri_transfer.datasets.fetch.transfer.addresses import shown, split_credentials


@pytest.mark.parametrize(
    ("address", "plain", "name", "password"),
    [
        ("https://example.org/a", "https://example.org/a", None, None),
        ("https://me:SECRET@example.org:8443/a", "https://example.org:8443/a", "me", "SECRET"),
        ("https://me%40org:p%3Aq@example.org/", "https://example.org/", "me@org", "p:q"),
        ("https://me@example.org/", "https://example.org/", "me", ""),
        ("http://a@b:SECRET@example.org/", "http://example.org/", "a@b", "SECRET"),
        ("http://me:SECRET@[::1]:80/x", "http://[::1]:80/x", "me", "SECRET"),
    ],
)
def test_credentials_are_split_off(address, plain, name, password):
    url, auth = split_credentials(address)
    assert url == plain
    assert (auth and auth.username, auth and auth.password) == (name, password)


def test_what_is_shown():
    assert (
        shown("https://me:SECRET@example.org/a/b.zip?X-Amz-Signature=SECRET#SECRET")
        == "https://example.org/a/b.zip"
    )
    assert "SECRET" not in shown("http://[SECRET")
