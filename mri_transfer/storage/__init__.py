"""What is on disk survives: atomic files, locks, lines of JSON, named arrays.

Knows nothing of what is stored.
"""
