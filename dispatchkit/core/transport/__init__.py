"""One request, one response. aiohttp is imported here and nowhere else."""
