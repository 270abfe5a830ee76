"""The forms of a program that can be held beside each other."""

FORMS = ("interpreter", "compiled", "sequential", "recurrence", "chunk", "checkpointed")
"""Names of forms; those behind the second only where a program has them."""
