"""What the frozen parts of the model make of samples, stored."""
