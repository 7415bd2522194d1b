"""Answers -> word error rates and each dataset's own metric, with the counts they come from; the bootstrap.

In: answers and references, as text. Out: `records.Wer`, `records.TaskMetric`. `bootstrap` gives the intervals of all
sums over sums, comparisons of runs included.
May import: the ground.
"""
