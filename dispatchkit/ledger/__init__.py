"""The durable memory of launches: written before each request leaves, and read by whoever resumes them."""
