"""What the blocking face stands on: the loop thread, and the way to it and back."""
