"""Changes to training images: drawn per image on the host, run per batch on the device."""
