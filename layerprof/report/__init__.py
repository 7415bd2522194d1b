"""Everything that shows a run; imports records only, never torch or hooks."""
