"""The options that the constructor of every client takes."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Sequence
from typing import TypedDict, cast

from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.clock import Clock
from dispatchkit.core.observe import Observer
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.secret import Unshown

__all__ = ["ClientOptions", "hide_proxy"]


class ClientOptions(TypedDict, total=False):
    """The options of every client's constructor, blocking or not.

    Attributes:
        timeout: Seconds that a whole call may take: attempts, waits and settling together. Default: 240.0.
        attempt_timeout: Seconds that one attempt may take. Default: 70.0.
        retry: When and how a call is repeated. Default: `RetryPolicy()`.
        pace: The speed at which all clients of the account in this process may use it. None leaves the account's pace
            as it is. Default: None.
        clock: The source of time and randomness; a test passes a fake one. Default: the system's.
        insecure: Allow plain ``http`` to another machine, which shows the token on the way, and connections that check
            no certificate. Default: False.
        proxy: The URL of an HTTP proxy. None: a direct connection. Default: None.
        ssl: An `ssl.SSLContext` for the connections. True checks the server's certificate against the system's
            authorities. False, or a context with ``CERT_NONE``, checks nothing and needs ``insecure=True``.
            Default: True.
        account: A name for the account, at most 200 characters. A ledger's run keeps it, so that the account can resume
            the run with a new token. None: the token identifies the account. Default: None.
        observers: Callables that take each event of the client; see `Observer`. They see its calls, runs and pauses,
            and change nothing. Default: ().

    Example:
        >>> slow: ClientOptions = {"timeout": 600, "pace": Pace(rate=10)}
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, **slow) as direct:
        ...         await direct.start(7)
        StartedDispatch(dispatch_id=7, settled=False)
    """

    timeout: float
    attempt_timeout: float
    retry: RetryPolicy
    pace: Pace | None
    clock: Clock
    insecure: bool
    proxy: str | None
    ssl: ssl_module.SSLContext | bool
    account: str | None
    observers: Sequence[Observer]


def hide_proxy(options: ClientOptions) -> None:
    """Wrap the proxy's URL, which may hold a password: a traceback shows the options of the constructor's frame."""
    proxy = options.get("proxy")
    if isinstance(proxy, str):
        cast("dict[str, object]", options)["proxy"] = Unshown(proxy)
