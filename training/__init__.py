"""The training loop: several heads on one frozen backbone, on one process or many.

Imports report and what lies below; network.py may import it.
"""
