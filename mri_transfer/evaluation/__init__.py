"""Classifier scores and their uncertainty, for every stage. Works on plain arrays."""
