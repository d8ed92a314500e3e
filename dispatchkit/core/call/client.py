"""`Client`: what every provider's client is made of. `perform` is the one way from a command to its outcome."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, ClassVar, Generic, Never, Self, TypeVar, cast

import attrs

from dispatchkit.core.call.budget import BudgetStatistics, RetryBudget
from dispatchkit.core.call.context import ClientContext, RunSettings
from dispatchkit.core.call.flight import TakeOver
from dispatchkit.core.call.launches import launches_at
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.core.call.replays import replays_of
from dispatchkit.core.call.retry import DEFAULT_RETRY, RetryPolicy, a_policy
from dispatchkit.core.clock import SYSTEM, Clock, a_clock
from dispatchkit.core.command import Command
from dispatchkit.core.context_managers import AsyncOnly
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.loop import running_loop
from dispatchkit.core.observe import Observer, Observers, observers_of
from dispatchkit.core.pacing.pace import Pace, PaceStatistics
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.pacing.pacers import get_pacer, join_pacer
from dispatchkit.core.reprs import RichRepr, describe
from dispatchkit.core.secret import Secret, Unshown, account_key
from dispatchkit.core.transport.patched import refuse_patched
from dispatchkit.core.transport.transport import Transport
from dispatchkit.core.transport.url import origin
from dispatchkit.core.validators import a_kind, label, seconds, shown, true_or_false
from dispatchkit.errors import NotSentError
from dispatchkit.values import Value

__all__ = ["ATTEMPT_TIMEOUT", "CONNECT_TIMEOUT", "TIMEOUT", "Client", "ClientStatistics"]

R = TypeVar("R")
W = TypeVar("W")

TIMEOUT = 240.0
"""Seconds a whole call may take, unless the client or the call says otherwise."""

ATTEMPT_TIMEOUT = 70.0
"""Seconds one attempt may take. Under load an answer may take far longer than usual."""

CONNECT_TIMEOUT = 10.0
"""Seconds to open a connection."""


def _trust(ssl: ssl_module.SSLContext | bool, *, insecure: bool) -> ssl_module.SSLContext | bool:
    if not isinstance(ssl, ssl_module.SSLContext | bool):
        raise TypeError(f"ssl must be True or an ssl.SSLContext of a client, not {shown(ssl)}")
    if isinstance(ssl, ssl_module.SSLContext) and ssl.protocol == ssl_module.PROTOCOL_TLS_SERVER:
        raise ValueError("ssl must be an ssl.SSLContext of a client, not one of a server (PROTOCOL_TLS_SERVER)")
    verifies = ssl if isinstance(ssl, bool) else ssl.verify_mode != ssl_module.CERT_NONE
    if not verifies and not insecure:
        given = "ssl=False" if ssl is False else "an ssl.SSLContext with CERT_NONE"
        raise ValueError(
            f"{given} accepts any certificate, so the token may go to another machine. To trust your own authority, "
            "pass ssl=ssl.create_default_context(cafile='authority.pem'). insecure=True accepts any certificate"
        )
    return ssl


@attrs.frozen
class ClientStatistics(Value):
    """A snapshot of a client."""

    pace: PaceStatistics
    budget: BudgetStatistics
    state_reads: int
    """Reads of the provider's state: to settle an unclear attempt, or to see that a canary goes out."""


class Client(AsyncOnly, Generic[W]):
    """The base of every provider's client. ``W`` is the provider's wire: its token and its format.

    Args:
        base_url: ``scheme://host[:port]`` of the provider.
        wire: The value that builds the provider's requests.
        secret: The token.
        options: See `ClientOptions`; their defaults are in this constructor.

    Raises:
        ValueError: An option is out of range, or ``base_url`` is more than a host.
        TypeError: An option is of another type; the message names it.
        RuntimeError: gevent or eventlet has replaced this process's sockets or threads.
    """

    command_type: ClassVar[type[Command[Never, object]]]
    """The base class of the commands that this provider understands."""

    def __init__(
        self,
        base_url: str | Unshown[str],
        wire: W,
        secret: Secret,
        *,
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        account: str | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        url = base_url if isinstance(base_url, Unshown) else Unshown(base_url)
        given = cast("str | Unshown[str] | None", proxy)  # see `hide_proxy`
        through = Unshown(given) if isinstance(given, str) else given
        del base_url, proxy, given  # a traceback shows the locals of this frame
        refuse_patched()
        if not self.provider:
            raise TypeError(f"{self.command_type.__name__}.provider must be the name of the provider")
        self._owns_connections = True
        self._timeout = seconds("timeout", timeout)
        self._retry = a_policy(retry)
        if pace is not None:
            a_kind("pace", pace, Pace, "a Pace such as Pace(rate=50), or None")
        self._origin = origin(url, insecure=true_or_false("insecure", insecure))
        self._fingerprint = secret.fingerprint
        self._account = None if account is None else label("account", account)
        self._profile: str | None = None
        self._launch_options: str | None = None
        self._accepted_runs = set[str]()
        """Runs with a launch that the provider has accepted: their further chunks need no ramp."""
        attempt_timeout = seconds("attempt_timeout", attempt_timeout)
        in_process = (self.provider, str(self._origin), account or secret.account())
        self._pace = pace
        clock = a_clock(clock)
        secret.now = clock.boottime
        self._context = ClientContext(
            secret=secret,
            join_account=self._join_account,
            wire=wire,
            transport=Transport(
                self._origin,
                connect_timeout=CONNECT_TIMEOUT,
                attempt_timeout=attempt_timeout,
                proxy=through,
                ssl=_trust(ssl, insecure=insecure),
            ),
            clock=clock,
            budget=RetryBudget(clock),
            pacer=get_pacer(in_process, pace, clock),
            attempt_timeout=attempt_timeout,
            launches=launches_at(str(self._origin), clock),
            replays=replays_of(in_process, clock),
            observers=observers_of(observers, provider=self.provider, base_url=str(self._origin), clock=clock),
        )
        self._command_types: set[type] = set()
        """The classes of commands that were checked: to ask an abstract class costs a microsecond."""
        self._call_type: type[PendingCall[W, Any]] = PendingCall
        if self._context.observers is not None:
            from dispatchkit.core.call.observed import ObservedCall  # noqa: PLC0415 - the events take 20 ms to import

            self._call_type = ObservedCall
            self._context.pacer.watchers.add(self._context.observers)

    @property
    def provider(self) -> str:
        """The name of the provider, which its commands have."""
        return self.command_type.provider

    async def perform(
        self, command: Command[W, R], *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> R:
        """Perform a command and return its result.

        A call that is cancelled may have acted; a note on the `asyncio.CancelledError` says what is known. An
        `asyncio.TaskGroup` cancels its other calls when one fails. `FanOut` does not.

        Args:
            command: What to do.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The provider said no and did nothing.
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have happened.
            ValueError: The command cannot be sent as it is.
            TypeError: The command is another provider's, or a setting is of another type.
            RuntimeError: The client is closed.
        """
        if self._context.secret.is_renewable:
            timeout = await self._have_token(timeout)
        return await self._call(command, timeout=timeout, retry=retry).run()

    def with_options(self, *, timeout: float | None = None, retry: RetryPolicy | None = None) -> Self:
        """The same client with other defaults for its calls: it shares connections, pace and retry budget.

        The connections belong to the original. Its `close` ends both; that of the returned client does nothing.

        Args:
            timeout: Seconds for a whole call; None takes that of this client.
            retry: When and how a call is repeated; None takes the policy of this client.

        Raises:
            ValueError: ``timeout`` is out of range.
            TypeError: A setting is of another type.

        Example:
            >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...     await direct.with_options(timeout=600).start(7)
            StartedDispatch(dispatch_id=7, settled=False)
        """
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))
        derived._timeout = self._timeout if timeout is None else seconds("timeout", timeout)
        derived._retry = self._retry if retry is None else a_policy(retry)
        derived._owns_connections = False
        return derived

    async def _have_token(self, timeout: float | None = None) -> float:
        """Ask for the token of a callable, if none is cached or if it has expired. For a fan-out, before `_call`.

        Args:
            timeout: Seconds to wait for the callable; None takes the client's.

        Returns:
            The seconds of the timeout that are left, for the call itself.

        Raises:
            NotSentError: The callable gave none in time.
            BaseException: The callable raised it.
        """
        limit, clock = self._timeout if timeout is None else seconds("timeout", timeout), self._context.clock
        until = clock.monotonic() + limit
        await self._context.have_token(limit)
        if (left := until - clock.monotonic()) <= 0:
            raise NotSentError(f"the token callable gave its token only after {limit:g} s")
        return left

    @property
    def _has_renewable_token(self) -> bool:
        """Whether a callable gives the token."""
        return self._context.secret.is_renewable

    def _keep_pacer(self) -> Pacer:
        """The account's pacer, which the client keeps from now on: a run begins with it."""
        self._context.keeps_pacer = True
        return self._context.pacer

    def _join_account(self) -> None:
        """Share the pace of the account that the token tells.

        Once a call or a run has begun, this client keeps its pacer: permits belong to it.
        """
        if self._account is not None:
            return
        context = self._context
        account = (self.provider, str(self._origin), context.secret.account())
        pacer = join_pacer(account, context.pacer, self._pace, context.clock)
        context.join(pacer, replays_of(account, context.clock))

    def _call(
        self,
        command: Command[W, R],
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        request_id: str | None = None,
        unclear_since: datetime | None = None,
        acting_until: float | None = None,
        repeats: int = 0,
        acted_by: float | None = None,
    ) -> PendingCall[W, R]:
        """Prepare a call without sending anything: ``await call.run()`` does what `perform` does.

        Its ``request`` is what will be sent; its ``attempts`` can be read even if it is cancelled.

        Args:
            command: What to do.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.
            request_id: The one to send, where the provider takes any; None makes a new one.
            unclear_since: When another process's unclear attempt of the same command began. It is settled before
                anything is sent, as a lost answer of this process would be. ``request_id`` is then that attempt's.
            acting_until: On the clock's ``monotonic``: until when that attempt may still reach the provider. None means
                until this call begins.
            repeats: How often another process may have repeated that attempt. An unclear launch is not repeated twice,
                unless the provider has been seen to recognise a repeat.
            acted_by: On the clock's ``monotonic``: when that attempt has acted at the latest, if it has. What a log
                shows later is another launch. None means ``acting_until``.

        Raises:
            ValueError: The command cannot be sent as it is.
            TypeError: The command is another provider's, or a setting is of another type.
            RuntimeError: The client is closed.
        """
        if self._context.stop.is_set:
            raise RuntimeError(f"this {type(self).__name__} is closed: make a new one")
        if type(command) not in self._command_types:
            self._check_type(command)
        call: PendingCall[W, R] = self._call_type(
            command,
            self._context,
            self._timeout if timeout is None else seconds("timeout", timeout),
            self._retry if retry is None else a_policy(retry),
            request_id,
        )
        if unclear_since is not None:
            call.take_over(TakeOver(unclear_since, acting_until, repeats, acted_by))
        return call

    def _check_type(self, command: object) -> None:
        kind = type(command)
        if not isinstance(command, (self.command_type, InvalidCommand)):
            raise TypeError(f"command must be a {self.command_type.__name__}, not {kind.__name__}")
        self._command_types.add(kind)

    def _for_reads(self) -> tuple[ClientContext[W], RetryPolicy]:
        """What a fan-out's own reads of state take."""
        return self._context, self._retry

    def _settings(self) -> dict[str, str]:
        """Whose client it is, as text: provider, host and what else tells how it speaks. Never a token."""
        return {"provider": self.provider, "base_url": str(self._origin)}

    def _run_settings(self) -> RunSettings:
        """How the client carries out a run, for the memory of the run."""
        return RunSettings(
            settings=self._settings(),
            account=self._account,
            fingerprint=self._token_fingerprint,
            attempt_timeout=self._context.attempt_timeout,
            profile=self._profile,
            launch_options=self._launch_options,
        )

    def _token_fingerprint(self) -> str:
        """What identifies the token on every machine: a slow hash of it, of provider and of host.

        Raises:
            ValueError: A callable returned something that is not a token.
        """
        return self._fingerprint(f"{self.provider} {self._origin}")

    def _account_key(self) -> str:
        """The key of the client's account, equal on every machine.

        It is a hash of provider, host and account name, or of the token.

        Raises:
            ValueError: A callable returned something that is not a token.
        """
        if self._account is None:
            return self._token_fingerprint()
        settings = self._settings()
        return account_key(settings["provider"], settings["base_url"], self._account)

    @property
    def _pacer(self) -> Pacer:
        """What paces the account, for every client and fan-out of it in this process."""
        return self._context.pacer

    @property
    def _observers(self) -> Observers | None:
        """The observers of the client; None without any."""
        return self._context.observers

    @property
    def _clock(self) -> Clock:
        """Time and chance, as the client sees them."""
        return self._context.clock

    def lift_pause(self) -> bool:
        """End the account's pause in this process: calls start again at once, one first, then more.

        Use it for a pause that the provider asked for by mistake. Another HTTP 429 pauses the account again. Where
        workers share the pause through a ledger's database, use `Ledger.lift_pauses` instead. Otherwise, the database's
        pause holds for this process again within a second. Any thread may call this method.

        Returns:
            Whether there was a pause.
        """
        return self._context.pacer.lift()

    def statistics(self) -> ClientStatistics:
        """What the client's account is doing, and what its retries and state reads have cost."""
        context = self._context
        return ClientStatistics(context.pacer.statistics(), context.budget.statistics(), context.state_reads)

    async def close(self) -> None:
        """Close the connections. Afterwards every call raises `RuntimeError`. Closing twice does nothing.

        A client of `with_options` leaves them to its original.
        """
        if not self._owns_connections:
            return
        self._context.stop.set()
        if self._context.observers is not None:
            self._context.pacer.watchers.discard(self._context.observers)
        await self._context.transport.close()

    async def __aenter__(self) -> Self:
        running_loop("client")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __rich_repr__(self) -> RichRepr:
        yield str(getattr(self, "_origin", None))  # a traceback may show a client whose constructor raised
        context = cast("ClientContext[W] | None", getattr(self, "_context", None))
        if context is not None:
            yield "account", self._account, None
            yield "in_flight", context.pacer.in_flight, 0
            yield "paused_for", round(context.pacer.paused_for(), 1), 0.0
            yield "closed", context.stop.is_set, False

    def __repr__(self) -> str:
        return describe(self)
