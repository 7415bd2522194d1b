"""What this machine can measure, and how well.

In: nothing. Out: an `Examination`: answers, and the findings that they are drawn from.
May import: energy, trace, machine and the ground.
"""
