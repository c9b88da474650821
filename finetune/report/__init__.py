"""`report.html`: the verdict first, then its evidence. Reads results, computes no score."""
