"""The run: `loop` trains step by step; the other modules start, save, resume, recover, stop and report it."""
