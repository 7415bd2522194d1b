"""An attributed trace in each format: its rows as a tree, the buckets, the books, and where names come from."""
