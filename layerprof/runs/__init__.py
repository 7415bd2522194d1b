"""A `Run` on disk, and two of them side by side.

In: a finished run, or folders. Out: `run.json` and the files beside it, whole or not at all; a `Comparison`.
May import: quality and the ground.
"""
