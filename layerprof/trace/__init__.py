"""A profiler trace -> kernels per layer: read in pieces, attributed by launch, rewritten for TensorBoard.

In: a Chrome trace of torch.profiler. Out: an `Attribution` with rows and buckets in whole nanoseconds.
May import: the ground.
"""
