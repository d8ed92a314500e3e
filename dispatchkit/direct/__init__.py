"""i-Digital Direct: its commands, its models, its client."""
