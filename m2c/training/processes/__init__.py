"""Several processes as one: what they agree on, how they gather, how they end."""
