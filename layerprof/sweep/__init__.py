"""An experiment file -> cells -> one run each, in processes that may fail, in a folder that can be gone on with.

In: a TOML file. Out: `sweep.json` and a folder a cell.
May import: measure and everything below.
"""
