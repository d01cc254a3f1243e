"""What one input may cost. Generous: a machine with other work is no finding."""

MOST_SECONDS = 2.0
"""Processor time. The longest that was seen is printed beside it."""
MOST_BYTES = 64 * 2**20
"""Of Python's memory; looked at for one input in `SAMPLE`, because it makes an input slow."""
SAMPLE = 32
MORE_MEMORY = 2**30
"""Address space that the process may take beyond what it has at its first input."""
HANGS = 30.0
"""Processor time after which an input is taken to have no end."""
