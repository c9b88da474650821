"""Training where Keras 3 can't run: an older TensorFlow runs the training step as a graph.

`exporting` makes the folder on a modern machine, `board/` is copied into it and runs on the board with only TensorFlow
and NumPy, `importing` turns the result into an ordinary run.
"""
