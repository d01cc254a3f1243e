"""Total forms, by theme: operations that raise, hang or change shape by value, made to do none of these."""
