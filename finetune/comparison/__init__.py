"""Trials of every arm on the same splits, then the statistics and the verdict. Draws nothing."""
