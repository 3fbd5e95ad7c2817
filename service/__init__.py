"""The HTTP service: an uploaded image in, a mask out."""
