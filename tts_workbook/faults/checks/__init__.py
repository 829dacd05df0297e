"""The checks, by area and in the order of cost: data, step, losses, model, learning, generation."""
