"""What training and service share: architecture, package, normalisation, tiling, stitching, labels, session."""
