"""From a decoded image to a stitched mask: registry, pipeline, scheduler, admission."""
