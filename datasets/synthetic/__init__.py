"""Generated heads for demos and tests; results on them are not evidence."""
