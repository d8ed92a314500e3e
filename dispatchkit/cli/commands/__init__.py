"""The commands and their options: Typer signatures only."""
