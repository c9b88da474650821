"""From a volume to the slices worth keeping: windowed, resampled, cut, deduplicated."""
