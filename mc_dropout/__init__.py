"""The mathematics of MC-dropout, and its script.

Imports models and utils; estimators may import it. The script may import anything.
"""
