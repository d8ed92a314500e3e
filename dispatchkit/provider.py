"""The interface for providers outside of this package.

A provider has three parts: a named base class of its commands, a `Client`, and a registry entry, `Provider`. The
rest of dispatchkit then treats it like its own providers: calls, fan-outs, ledgers, workers, ``dispatchkit resume``.

    class SmsCommand(Command[Secret, R_co]):
        provider = "sms"

    @attrs.frozen
    class StartSms(SmsCommand[str]):
        campaign: int = attrs.field(validator=positive_id)

        def request(self, wire, request_id): return Request("POST", f"/start/{self.campaign}")
        def result(self, response, wire): ...

    class SmsClient(Client[Secret]):
        command_type = SmsCommand

    SMS = Provider(name="sms", client=SmsClient, commands={"start": StartSms}, token_variable="SMS_TOKEN")

Only `Command.request` and `Command.result` are required. `result` reads answers with HTTP 200 and 4xx; a command names
further statuses of success in `Command.success_statuses`. `Command.probe` lets an unclear outcome be settled by the
provider's state; without it, an unclear command stays unknown.

A program calls `register`. An installed package names its entry in the entry point group ``dispatchkit.providers``.
Workers and the command line find it there:

    [project.entry-points."dispatchkit.providers"]
    sms = "sms_kit:SMS"

What is here, by purpose:

- Commands: `Command`, `Request`, `Response`, `USER_AGENT`, `JSON_FIELD`; `build_commands` makes many of ids.
- Answers: `read_json`, `fields_of`, `strict_converter`, `structure`. `means_refusal` says whether an HTTP status
  proves that nothing was done. `Listing` is a list that knows whether it is complete.
- Errors of `Command.result` if nothing was done: `RejectedError` or one of its children. `AuthenticationError` ends a
  run: the token is refused. The others are `AccessDeniedError`, `NotFoundError` and `InappropriateStatusError`.
- Errors of `Command.result` if the outcome is unclear: `UnexpectedResponseError` for an unreadable answer,
  `ContradictoryAnswerError` for one that contradicts itself.
- A client handles HTTP 429 by itself. `Secret.redact` masks the token in a message.
- Settling: `Probe` reads a state (`Probe.of`). `LogProbe` reads a log (`ask_log`, with a `TimeWindow`). The answer
  becomes a `Settlement` with its `Evidence`. `Command.goes_out` returns one of both for ``canary=``: does an accepted
  launch go out?
- Validators of fields: `positive_id`, `non_negative`, `non_empty`, `flag`, `moment`, `json_object` (a `JsonValue`).
- Clients: `Client` with its `ClientOptions`, `Secret`, `Token`; `FanOut` with its `FanOutOptions`. The blocking client
  is a `SyncClient` with methods that `blocking` and `blocking_many` make.
- The registry: `Provider`, `register`, `find_provider`.
"""

from __future__ import annotations

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.options import ClientOptions
from dispatchkit.core.command import (
    JSON_FIELD,
    USER_AGENT,
    Command,
    ContradictoryAnswerError,
    Evidence,
    LogProbe,
    Probe,
    Request,
    Response,
    Settlement,
    TimeWindow,
    UnexpectedResponseError,
    ask_log,
    means_refusal,
)
from dispatchkit.core.decode import fields_of, read_json, strict_converter, structure
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.listing import Listing
from dispatchkit.core.secret import Secret, Token
from dispatchkit.core.validators import JsonValue, flag, json_object, moment, non_empty, non_negative, positive_id
from dispatchkit.errors import (
    AccessDeniedError,
    AuthenticationError,
    InappropriateStatusError,
    NotFoundError,
    RejectedError,
)
from dispatchkit.providers import Provider, find_provider, register
from dispatchkit.sync.client import SyncClient, blocking, blocking_many

__all__ = [
    "JSON_FIELD",
    "USER_AGENT",
    "AccessDeniedError",
    "AuthenticationError",
    "Client",
    "ClientOptions",
    "Command",
    "ContradictoryAnswerError",
    "Evidence",
    "FanOut",
    "FanOutOptions",
    "InappropriateStatusError",
    "JsonValue",
    "Listing",
    "LogProbe",
    "NotFoundError",
    "Probe",
    "Provider",
    "RejectedError",
    "Request",
    "Response",
    "Secret",
    "Settlement",
    "SyncClient",
    "TimeWindow",
    "Token",
    "UnexpectedResponseError",
    "ask_log",
    "blocking",
    "blocking_many",
    "build_commands",
    "fields_of",
    "find_provider",
    "flag",
    "json_object",
    "means_refusal",
    "moment",
    "non_empty",
    "non_negative",
    "positive_id",
    "read_json",
    "register",
    "strict_converter",
    "structure",
]
