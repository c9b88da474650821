"""The labelled images: reading, comparing, grouping, and splitting without leaks."""
