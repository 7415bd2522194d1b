"""A run's figures without loading the model: ghost tensors in place of weights, rooflines in place of a clock.

In: a configuration and sizes. Out: an `Estimate` per layer and phase.
May import: books, layers, models, machine and the ground.
"""
