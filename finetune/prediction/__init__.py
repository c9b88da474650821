"""A classifier on new images: probabilities, images it can't judge, and where it looks."""
