"""How pages and figures look, in every stage. Knows nothing of what they show."""
