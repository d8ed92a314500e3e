"""How fast an account is used."""
