"""What is printed: progress, tables, failures, reports."""
