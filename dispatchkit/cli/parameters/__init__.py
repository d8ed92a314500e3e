"""The parameters of the command line, each declared once: type, name, help text. One module a panel of the help."""
