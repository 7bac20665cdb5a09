"""The demo that needs no download: its small backbone and the script that trains it."""
