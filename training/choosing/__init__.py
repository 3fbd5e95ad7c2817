"""What a run is to be like, by the images, by a package, by the time that there is."""
