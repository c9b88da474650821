"""Which images are the same picture: thumbnails, alignment, and the threshold found anew on every set."""
