"""Implementations of commands: launch, resume, work, serve."""
