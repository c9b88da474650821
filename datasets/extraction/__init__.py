"""The command `slices`: volumes on disk to a slice store, in parallel, interruptible and resumable at any instant."""
