"""A name -> samples -> batches of tensors as the model takes them.

In: a dataset's name and source, a loaded subject. Out: a `Dataset`, then `Batch`es.
May import: models, the bundled `demo`, machine and the ground.
"""
