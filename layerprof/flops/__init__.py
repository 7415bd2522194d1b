"""Shapes -> FLOPs and bytes: pure formulas, the operators that take them, and other counters beside ours.

In: shapes and number formats. Out: integers, 2 FLOPs per multiply-accumulate.
May import: layers, machine and the ground.
"""
