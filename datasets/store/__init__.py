"""The slice store: filled from a collection of volumes, interrupted at any instant, read at random."""
