"""CUDA graphs: what their captures took, what their replays ran, and which launch of which capture each piece was.

In: columns and ranges of traces. Out: ranges for replayed work. May import: the files of `trace` that read and place.
"""
