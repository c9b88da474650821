"""Training, test and scored images, and what pretraining must not have seen."""
