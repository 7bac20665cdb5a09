"""What every other package may import: configs, run folders, devices, method look-up."""
