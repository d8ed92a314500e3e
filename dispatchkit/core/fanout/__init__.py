"""Many commands through one client."""
