"""All decisions of a call, explored against a model of a provider.

The second stage explores calls of five attempts and six state reads. `python -m tests.proof` does the same, and prints
the number of states. `python -m tests.proof --attempts 7 --probes 8 --surprises 2` explores deeper.
"""
