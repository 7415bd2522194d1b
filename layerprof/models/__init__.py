"""A name, a hub id or a folder -> a model in eval mode on its device, with its processor.

In: what was asked. Out: a `ModelSource` (checked, nothing loaded), then a `Subject` (loaded).
May import: machine, the bundled `demo` and the ground.
"""
