"""The model people ship: one packed file, or one ONNX file with its proof; and the colour order.

Builds on evaluation and models; only scripts import it.
"""
