"""The machinery that performs a command and names its outcome. It knows no provider.

Each line may import only lines below it:

- `fanout`: many commands through one client.
- `call`: one command, from its first attempt to its outcome.
- `pacing`: how fast an account is used.
- `transport`: one request, one response. aiohttp is imported here and nowhere else.
- `decode`: from bytes to typed values.
- `charset`, `claim`, `invalid_command`, `stop`, `wakeup`: body text, a ledger's permission to send, unbuildable
  commands, the signal to start nothing new, waits that another thread may end.
- `command`, `clock`, `listing`, `log`, `secret`: requests as values, time and randomness, provider lists, log records,
  tokens.
- `validators`: checks of settings and fields.
"""
