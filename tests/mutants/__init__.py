"""Wrong versions of code that guards private data, each of which named tests must notice."""
