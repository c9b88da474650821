"""A trained classifier or encoder in the formats of other runtimes: SavedModel, LiteRT, ONNX."""
