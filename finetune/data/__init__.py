"""Which images train and which test, what is scored, and what must not have been seen in pretraining."""
