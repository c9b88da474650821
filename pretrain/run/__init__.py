"""The run: `loop` is what happens in a step; the modules beside it start, save, resume, recover, stop and report it."""
