"""Volumes on disk: found, told whose they are, and read from any format into one orientation."""
