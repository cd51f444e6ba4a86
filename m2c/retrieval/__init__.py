"""Retrieval: a gallery that is searched by picture and words, alone or with the help of a captioner and a language model."""
