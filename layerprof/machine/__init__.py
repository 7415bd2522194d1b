"""What the program runs on: devices and number formats, the environment block, GPUs by name, signals, other load.

The insides of other packages that it needs are asked for here, too, in one file (`internals`), and what can be asked of
any module in another (`modules`).

In: names that a user gave, and what the system tells. Out: a device that is there, facts about it, a warning.
May import: the ground (records, errors, registry, settings).
"""
