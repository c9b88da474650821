"""What is compared: starts, where their weights come from, what they are called, and the floors beside them."""
