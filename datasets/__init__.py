"""Data: from public volumes to slices to a slice store; the tumour set; copies, groups, folds and leaks."""
