"""From a decoded image to a stitched mask: registry, admission, scheduler, pipeline, and the engine that owns them."""
