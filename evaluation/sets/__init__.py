"""What is compared: sets of images, and files of scores."""
