"""What the program runs on: devices and number formats, the environment block, GPUs by name, signals, other load.

In: names that a user gave, and what the system tells. Out: a device that is there, facts about it, a warning.
May import: the ground (records, errors, registry, settings).
"""
