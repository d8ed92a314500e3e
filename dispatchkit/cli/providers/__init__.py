"""Implementations of the commands that belong to one provider."""
