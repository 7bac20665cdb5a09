"""Face detectors, one file each: boxes and five landmarks of the faces in a photo."""
