"""Training where Keras 3 can't run: the training step as a graph that an older TensorFlow trains.

`exporting` makes the folder on a modern machine, `board/` is copied into it and runs on the board with TensorFlow and
NumPy alone, `importing` makes an ordinary run of what comes back.
"""
