"""The Altcraft platform, v72 to v74: its commands, its models, its two wire forms, its client."""
