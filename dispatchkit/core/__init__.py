"""The machinery that performs a command and names its outcome. It knows no provider.

Each may import only those below it:

- `fanout`: many commands through one client.
- `call`: one command, from its first attempt to its outcome.
- `pacing`: how fast an account is used.
- `transport`: one request, one response. aiohttp is imported here and nowhere else.
- `json_slices`: a large JSON object, parsed item by item.
- `decode`: from bytes to typed values.
- `charset`: body text.
- `claim`: a ledger's permission to send.
- `invalid_command`: commands that cannot be built.
- `observe`: the observers of a client, and how they are told.
- `secret`: tokens.
- `stop`: the signal to start nothing new.
- `wakeup`: sleeps that another thread may end.
- `command`: requests as values.
- `clock`: time and randomness.
- `events`: what observers are told.
- `listing`: provider lists.
- `log`: log records.
- `options`: keyword arguments, documented once.
- `body`: the parts of a request's body.
- `context_managers`, `loop`: the kind of ``with`` and of event loop that is needed.
- `durations`: lengths of time as text.
- `reprs`: one description for ``repr``, rich and notebooks.
- `validators`: checks of settings and fields.
- `masking`: values hidden in a text that may quote them.
"""
