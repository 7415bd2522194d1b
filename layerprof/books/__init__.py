"""Readings -> a `Run` whose books close: spans, rows, ledgers, totals and their intervals.

In: what the hooks read. Out: `records.Run` and its parts.
May import: data, energy, flops, quality, layers, machine and the ground.
"""
