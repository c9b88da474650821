"""Which slices make a pair, and each slice's free labels. Reads the store, knows no method."""
