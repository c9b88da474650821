"""The slice store: filled from a collection of volumes, interruptible at any instant, with random access."""
