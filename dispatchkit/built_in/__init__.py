"""The registry entries of this package's own providers. Each names its classes by their places and loads none."""
