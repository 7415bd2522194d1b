"""An attributed trace in each format: rows by layer, the buckets, the books."""
