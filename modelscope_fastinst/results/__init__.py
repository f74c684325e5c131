"""From the network's outputs to what a person asked for."""
