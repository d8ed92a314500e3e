"""How often a provider acts on one call whose answer is lost, and what each library tells its caller."""
