"""How annotated images lie in a folder: one module for each layout, :mod:`training.layouts.choice` picks among them."""
