"""The command `slices`: volumes on disk to a slice store, in parallel, interrupted at any instant and resumed."""
