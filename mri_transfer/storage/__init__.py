"""Crash-safe storage: atomic files, locks, lines of JSON, named arrays.

Knows nothing of the content.
"""
