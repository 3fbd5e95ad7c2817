"""Annotated images: read, split, surveyed, weighted, cut into augmented tiles."""
