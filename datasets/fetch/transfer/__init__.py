"""Bytes from a server to the disk: resumed, verified, unpacked safely. Knows no source by name."""
