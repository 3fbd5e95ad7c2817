"""The way of one request, from its image to its answer."""
