"""Planes of an image, in memory or in files, at the scale and in the channels that a net takes."""
