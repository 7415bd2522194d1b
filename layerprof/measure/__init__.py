"""The passes of one run: the only wing that meets both the live model and the records.

In: settings. Out: the readings of each pass, and the run that the books make of them.
May import: everything below, and hooks by name through the registry.
"""
