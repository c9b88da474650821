"""The look of pages and figures, in every stage. Knows nothing of what they show."""
