"""How a training step fits this machine: precision, recomputation, micro-batches, speed."""
