"""Volumes on disk: finding, identifying and reading them from any format into one orientation."""
