"""Changes to training images: drawn per image on the host, run for a whole batch on the device."""
