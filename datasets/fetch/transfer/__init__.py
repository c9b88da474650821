"""Transfers from a server to disk: resumed, verified, unpacked safely. Knows no particular source."""
