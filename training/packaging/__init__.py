"""From a checkpoint to a model package: the graph, lower precisions, the card."""
