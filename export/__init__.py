"""From a trained model to one ONNX file, and the proof that it gives the same numbers."""
