"""Readers, one file per format: each turns files on disk into one canonical volume or says why not."""
