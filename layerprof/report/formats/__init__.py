"""A run in each format, one file a format."""
