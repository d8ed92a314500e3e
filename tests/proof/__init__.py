"""All decisions of a call, explored against a model of a provider.

The second stage explores calls of five attempts and six state reads. `python -m tests.proof` does the same, and prints
the number of states. `python -m tests.proof --attempts 7 --probes 8 --surprises 2` explores deeper.

What is proved holds within these bounds:

- A call has at most so many attempts and state reads, and one surprise: a stop, a pause, another launch, a wait that
  ends early or late, an expired claim, or an id that a proxy strips.
- An attempt is answered after 1 s, or never, or is not sent at all. An unclear request acts at its end, `LAG` later, or
  never. A takeover has one unclear attempt of an earlier process.
- A state read takes 0 or 1 s, and its response is up to date or `OLD`. The state lags by `LAG` at most, as the policy
  says.
- Wait strategies give 1 s, and the random numbers are 1. A 429 asks for 2 s. The call ends after 15 s.
- The wall clock and the monotonic one advance alike: neither is set, and the machine never sleeps.
"""
