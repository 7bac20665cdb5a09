"""The demo that needs no download: its backbone, its model, and the scripts that make them."""
