"""Whose picture each image is: recognised originals, tables, and guessed groups where no source says it."""
