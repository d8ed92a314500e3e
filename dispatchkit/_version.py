"""The version, read by the build and by `dispatchkit --version`."""

__version__ = "0.1.0"
