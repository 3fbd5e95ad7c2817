"""Image files in and masks out: one reader, one module per output format."""
