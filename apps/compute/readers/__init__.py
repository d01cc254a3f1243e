"""Readers of a program: each asks one question of the same graph.

shapes   which shapes and dtypes, at what cost; may it run at all?
labels   what may be released of it?
torch    the values
words    a text that a reviewer understands
"""
