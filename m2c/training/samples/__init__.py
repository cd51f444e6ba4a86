"""Rows of a data set, made ready for the model."""
