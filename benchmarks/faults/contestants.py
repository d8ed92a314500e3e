"""The contestants of the fault scorecard: each library makes one call as its README does, with its default settings.

Each is pointed at loopback by its documented setting. Run as a module, it is one library in a process of its own,
which may connect to loopback only. Telemetry is off by the documented opt-out, where a library has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

SECRET = "c2FuZGJveDpzYW5kYm94"
DISPATCH = 10000000125
MAILING = 90

Call = Callable[[str, float | None], object]
"""Makes one call to a URL, with a shorter timeout or with the default one. Returns what the caller gets."""


def _openai(url: str, timeout: float | None) -> object:
    from openai import OpenAI

    more = {} if timeout is None else {"timeout": timeout}
    client = OpenAI(api_key="key", base_url=f"{url}/v1", **more)
    return client.responses.create(model="gpt-5.2", input="Write the mailing.")


def _stripe(url: str, timeout: float | None, *, retries: int | None = None) -> object:
    import stripe

    stripe.enable_telemetry = False
    more = {} if timeout is None else {"http_client": stripe.RequestsClient(timeout=timeout)}
    client = stripe.StripeClient("sk_test_key", base_addresses={"api": url}, max_network_retries=retries, **more)
    return client.v1.payment_intents.create({"amount": 100, "currency": "usd", "confirm": True})


def _mailgun(url: str, timeout: float | None, *, has_key: bool = False) -> object:
    from mailgun.client import Client

    more = {} if timeout is None else {"timeout": timeout}
    key = {"headers": {"Idempotency-Key": str(uuid.uuid4())}} if has_key else {}
    with Client(auth=("api", "key"), api_url=url, **more) as client:
        letter = {"from": "us@example.com", "to": ["them@example.com"], "subject": "News", "text": "Hello"}
        return client.messages.create(domain="example.com", data=letter, **key)


def _customerio(url: str, timeout: float | None) -> object:
    from customerio import APIClient, SendEmailRequest

    more = {} if timeout is None else {"timeout": timeout}
    request = SendEmailRequest(to="them@example.com", transactional_message_id="3", identifiers={"id": "2"})
    return APIClient("key", url=url, **more).send_email(request)


def _klaviyo(url: str, timeout: float | None) -> object:
    from klaviyo_api import KlaviyoAPI

    client = KlaviyoAPI("key", test_host=url)
    more = {} if timeout is None else {"_request_timeout": timeout}
    return client.Campaigns.send_campaign({"data": {"type": "campaign-send-job", "id": "01H"}}, **more)


def _aiobotocore(url: str, timeout: float | None) -> object:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    more = {} if timeout is None else {"config": AioConfig(read_timeout=timeout)}

    async def send() -> object:
        settings = {"region_name": "eu-west-1", "aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        async with get_session().create_client("ses", endpoint_url=url, **settings, **more) as client:
            message = {"Subject": {"Data": "News"}, "Body": {"Text": {"Data": "Hello"}}}
            return await client.send_email(
                Source="us@example.com", Destination={"ToAddresses": ["them@example.com"]}, Message=message
            )

    return asyncio.run(send())


def _httpx(url: str, timeout: float | None) -> object:
    import httpx

    more = {} if timeout is None else {"timeout": timeout}
    return httpx.post(f"{url}/launch", json={"id": 7}, **more).raise_for_status().json()


def _requests(url: str, timeout: float | None) -> object:
    import requests

    response = requests.post(f"{url}/launch", json={"id": 7}, timeout=timeout)
    response.raise_for_status()
    return response.json()


def _direct(url: str, timeout: float | None, *, deadline: float = 240.0) -> object:
    from dispatchkit import DirectClient

    attempt = timeout or min(70.0, deadline)

    async def start() -> object:
        async with DirectClient(SECRET, base_url=url, attempt_timeout=attempt, timeout=deadline) as direct:
            return await direct.start(DISPATCH)

    return asyncio.run(start())


def _altcraft(url: str, timeout: float | None) -> object:
    from dispatchkit import AltcraftClient

    async def launch() -> object:
        async with AltcraftClient(url, "sandbox", attempt_timeout=timeout or 70.0) as altcraft:
            return await altcraft.launch_broadcast(MAILING)

    return asyncio.run(launch())


@dataclass(frozen=True)
class Contestant:
    """A library, the call that it makes, and what its documentation says of repeats."""

    name: str
    package: str
    calls: str
    call: Call
    waits: str
    """How long its default settings wait for an answer."""
    answer: str = "{}"
    answers_with: int = 200
    media_type: str = "application/json"
    refusal: str = '{"error": {"message": "refused"}, "message": "refused"}'
    key: str | None = None
    """The header by which the provider recognises a repeat, where the library's documentation says so."""
    insists_on_tls: bool = False
    hides_state: bool = False
    """Whether the provider answers no read: what a caller is told where nothing can be settled."""


_STRIPE_ANSWER = '{"id": "pi_1", "object": "payment_intent", "amount": 100}'
_KLAVIYO_ANSWER = (
    '{"data": {"type": "campaign-send-job", "id": "01H", "attributes": {"status": "queued"}, '
    '"links": {"self": "https://example.com"}}}'
)
_SES_ANSWER = (
    '<SendEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendEmailResult><MessageId>1</MessageId>'
    "</SendEmailResult><ResponseMetadata><RequestId>2</RequestId></ResponseMetadata></SendEmailResponse>"
)

_SES_REFUSAL = (
    '<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error><Type>Sender</Type>'
    "<Code>MessageRejected</Code><Message>refused</Message></Error><RequestId>2</RequestId></ErrorResponse>"
)
_MAILGUN_ANSWER = '{"id": "<1>", "message": "Queued."}'
_KEY = "Idempotency-Key"

CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("openai", "openai", "responses.create", _openai, "600 s", '{"id": "resp_1", "object": "response"}'),
        Contestant("stripe", "stripe", "payment_intents.create", _stripe, "80 s", _STRIPE_ANSWER, key=_KEY),
        Contestant(
            "stripe, max_network_retries=2",
            "stripe",
            "payment_intents.create",
            partial(_stripe, retries=2),
            "80 s",
            _STRIPE_ANSWER,
            key=_KEY,
        ),
        Contestant("mailgun", "mailgun", "messages.create", _mailgun, "60 s", _MAILGUN_ANSWER, key=_KEY),
        Contestant(
            "mailgun, own Idempotency-Key",
            "mailgun",
            "messages.create",
            partial(_mailgun, has_key=True),
            "60 s",
            _MAILGUN_ANSWER,
            key=_KEY,
        ),
        Contestant(
            "customerio",
            "customerio",
            "send_email",
            _customerio,
            "10 s",
            '{"delivery_id": "1", "queued_at": 1}',
            insists_on_tls=True,
        ),
        Contestant("klaviyo-api", "klaviyo-api", "send_campaign", _klaviyo, "without limit", _KLAVIYO_ANSWER, 202),
        Contestant(
            "aiobotocore",
            "aiobotocore",
            "SES send_email",
            _aiobotocore,
            "60 s",
            _SES_ANSWER,
            media_type="text/xml",
            refusal=_SES_REFUSAL,
        ),
        Contestant("httpx", "httpx", "post, raise_for_status", _httpx, "5 s"),
        Contestant("requests", "requests", "post, raise_for_status", _requests, "without limit"),
        Contestant("dispatchkit, Direct", "dispatchkit", "DirectClient.start", _direct, "70 s"),
        Contestant("dispatchkit, Altcraft", "dispatchkit", "AltcraftClient.launch_broadcast", _altcraft, "70 s"),
        Contestant(
            "dispatchkit, Direct, state hidden",
            "dispatchkit",
            "DirectClient.start, timeout=3",
            partial(_direct, deadline=3.0),
            "3 s",
            hides_state=True,
        ),
    )
}


@dataclass(frozen=True)
class CallResult:
    """What the caller of one call gets."""

    name: str
    """The class of the error or of the result."""
    is_error: bool
    status: int | None
    """The HTTP status that the error carries, if any."""
    says: bool
    """Whether the error's text says that the call may have taken effect."""
    text: str
    seconds: float


_MAY_HAVE = re.compile(r"\b(may|might|could) have\b", re.IGNORECASE)


def tell(call: Callable[[], object]) -> CallResult:
    """Make a call, and describe its result or its error."""
    began = time.perf_counter()
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - what it is, is the measurement
        name = f"{type(error).__module__.partition('.')[0]}.{type(error).__qualname__}"
        text, status, is_error = str(error), _status(error), True
    else:
        name, text, status = type(result).__qualname__, repr(result), _status(result)
        is_error = status is not None and status >= 400  # mailgun returns a refusal as a response
    says = is_error and _MAY_HAVE.search(text) is not None
    return CallResult(name, is_error, status, says, text[:500], time.perf_counter() - began)


def _status(value: object) -> int | None:
    found = getattr(value, "response", None)
    if isinstance(found, Mapping):  # botocore's
        found = found.get("ResponseMetadata", {}).get("HTTPStatusCode")
    names = ("status_code", "http_status", "status") if isinstance(value, Exception) else ("status_code",)
    candidates = [found, *(getattr(each, name, None) for each in (value, found) for name in names)]
    return next((each for each in candidates if isinstance(each, int)), None)


STRAYS: list[str] = []


def _loopback_only(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: refuse and note each connection and look-up beyond loopback."""
    host: object = "127.0.0.1"
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in {"127.0.0.1", "localhost", "::1", None, b"127.0.0.1"}:
        STRAYS.append(f"{event} {host!r}")
        raise PermissionError(f"loopback only, not {host!r}")


def _main() -> None:
    name, calls = sys.argv[1], json.loads(sys.argv[2])
    sys.addaudithook(_loopback_only)
    contestant = CONTESTANTS[name]
    told: dict[str, object] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for fault, url, timeout in calls:
            told[fault] = dataclasses.asdict(tell(partial(contestant.call, url, timeout)))
    print(json.dumps({"told": told, "strays": STRAYS}), flush=True)


if __name__ == "__main__":
    _main()
