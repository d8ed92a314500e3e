"""The durable record of launches: written before each request leaves, and read by a resume."""
