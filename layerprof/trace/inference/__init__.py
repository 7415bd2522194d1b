"""Layers that nobody recorded: what repeats in a sequence of kernels, where each layer begins, and what it is called.

In: kernels by name in their order. Out: stacks of layers, with what they rest on. May import: `graphs`, and the files
of `trace` that read and place.
"""
