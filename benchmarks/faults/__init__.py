"""How often a provider acts on one call whose answer is lost, with each library, and what its caller is told."""
