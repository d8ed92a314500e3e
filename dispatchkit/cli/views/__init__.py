"""What the commands show of ledgers and providers."""
