"""How a training step is fitted to this machine: precision, recomputation, micro-batches, speed."""
