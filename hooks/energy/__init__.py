"""Energy sensors and the replay of captured layers, one vendor a file."""
