"""The bundled model, and the scripts that make it.

Imports anything; no room may import it.
"""
