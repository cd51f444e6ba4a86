"""Data: image-caption pairs, triplets, and `scenes`, the procedural world of the quickstart."""
