"""Scores of classifiers and how sure they are, for every stage. Works on arrays alone."""
