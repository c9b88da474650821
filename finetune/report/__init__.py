"""`report.html`: the verdict first, then everything it rests on. Reads results, computes no score."""
