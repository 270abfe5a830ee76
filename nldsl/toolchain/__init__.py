"""The C compiler of this machine, and what it has made before: plain Python, without torch."""
