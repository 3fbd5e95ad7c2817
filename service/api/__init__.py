"""The HTTP face: routes without logic."""
