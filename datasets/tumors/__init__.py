"""The labelled images: read, compared, grouped, and split without leaks."""
