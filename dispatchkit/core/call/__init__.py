"""One command, from its first attempt to its outcome."""
