"""The rows of the table of operations, by theme. No module here needs torch."""
