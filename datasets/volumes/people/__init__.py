"""Whose scan is it: decided over a whole collection, shown with the evidence, and corrected by a pattern or a table."""
