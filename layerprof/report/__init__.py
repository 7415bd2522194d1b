"""Everything that shows a run, a sweep or a result; takes records, and loads neither torch nor hooks.

In: finished records. Out: text, files, pages.
May import: sweep, runs, books and what else holds records, never torch, transformers or hooks.
"""
