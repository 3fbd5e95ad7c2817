"""Offline training: a few annotated images in, a model package out."""
