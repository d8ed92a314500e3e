"""Output of commands: progress, tables, failures, reports."""
