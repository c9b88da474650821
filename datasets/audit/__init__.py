"""What is wrong with a folder of labelled images, and with a slice store beside it."""
