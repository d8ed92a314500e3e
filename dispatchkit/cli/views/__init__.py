"""Output of commands that show ledgers and providers."""
