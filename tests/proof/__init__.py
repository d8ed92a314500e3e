"""All decisions of a call, explored against a model of a provider.

`python -m tests.proof --attempts 5 --probes 6` explores deeper than the suite does, and prints the number of states.
"""
