"""A sweep in each format, one file a format."""
