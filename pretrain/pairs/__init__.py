"""Which slices make a pair, and what a store knows of each for free. Reads the store, knows no method."""
