"""A model -> the units that get a row, told by structure; and the selector that picks among them.

In: a live or a ghost model. Out: `readings.Layer`s, which of them are selected, and who encloses whom.
May import: machine (for compiled modules) and the ground.
"""
