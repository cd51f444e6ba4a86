"""Evaluation: metrics, and the rows that a composed retriever is compared with."""
