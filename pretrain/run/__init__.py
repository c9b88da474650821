"""The run: `loop` is what happens in a step; the modules beside it start, save, resume, stop and report it."""
