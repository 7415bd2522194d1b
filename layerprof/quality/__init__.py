"""Answers -> word error rates and each dataset's own metric, with the counts they come from.

In: answers and references, as text. Out: `records.Wer`, `records.TaskMetric`.
May import: the ground.
"""
