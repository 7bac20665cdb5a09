"""One file per way of getting an uncertainty from an image."""
