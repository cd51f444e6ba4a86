"""From a batch to weights that have moved."""
