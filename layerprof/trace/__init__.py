"""A profiler trace -> kernels per layer: read in pieces, attributed by launch, by capture, or by what repeats.

In: a Chrome trace of torch.profiler. Out: an `Attribution` with rows and buckets in whole nanoseconds.
May import: the ground.

The way through it: `file` (with `reading/`) gives events, `events` columns, `work` ranges and pieces of work by their
launch (`launches`), `steps` a server's steps; `naming` gives ranges to what has none, by `graphs/` and `inference/`;
`rows` sums up. `attribute` is the face of it all, `sums` adds up traces.
"""
