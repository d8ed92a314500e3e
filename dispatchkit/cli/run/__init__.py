"""What the commands do: launch, resume, work, serve."""
