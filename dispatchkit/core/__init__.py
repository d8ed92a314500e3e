"""The machinery that performs a command truthfully. It knows no provider."""
