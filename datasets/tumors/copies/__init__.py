"""Images that are the same picture: thumbnails, alignment, and a threshold determined for each set."""
