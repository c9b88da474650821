"""Generated heads, for demos and tests; nothing learned from them is evidence."""
