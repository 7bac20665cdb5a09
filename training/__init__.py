"""The training loop: several heads on one frozen backbone, on one process or many."""
