"""A classifier on new images: probabilities, what it can't judge, and where it looks."""
