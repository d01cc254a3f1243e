"""Attack 18 without end: bent inputs for everything that reads what a stranger sends.

    python -m tests.attacks.fuzz --inputs 1000000

Input number i of a seed is always the same, so `--only i` repeats one. See `__main__.py` for what counts as a finding.
"""
