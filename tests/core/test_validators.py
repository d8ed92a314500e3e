"""The caller's mistakes are found before anything is sent, and named: field, value, what is allowed."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from dispatchkit import AltcraftClient, Attachment, Audience, DirectClient, LaunchBroadcast, StartDispatch, StopDispatch
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.secret import Secret
from dispatchkit.core.transport.url import origin, proxy_url
from dispatchkit.core.validators import json_object
from dispatchkit.direct.commands import DirectAuth, ReadDispatches
from tests.wire import Listener, http


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPATCHKIT_DIRECT_TOKEN", "DISPATCHKIT_ALTCRAFT_TOKEN", "DISPATCHKIT_ALTCRAFT_URL"):
        monkeypatch.delenv(name, raising=False)


class Number(int, enum.Enum):
    ONE = 1


BAD_IDS: list[tuple[Any, type[Exception], str]] = [
    (True, TypeError, "not bool True"),
    ("5", TypeError, "not str '5'"),
    (1.0, TypeError, "not float 1.0"),
    (None, TypeError, "not NoneType None"),
    (Decimal(5), TypeError, "not Decimal Decimal('5')"),
    (b"5", TypeError, "not bytes b'5'"),
    ([5], TypeError, "not list [5]"),
    (0, ValueError, "not 0"),
    (-1, ValueError, "not -1"),
    (2**63, ValueError, "not 9223372036854775808"),
]
BY_ID: list[tuple[str, Callable[[DirectClient, AltcraftClient, Any], Awaitable[object]]]] = [
    ("dispatch_id", lambda direct, _, bad: direct.start(bad)),
    ("dispatch_id", lambda direct, _, bad: direct.stop(bad)),
    ("mailing_id", lambda _, altcraft, bad: altcraft.activate(bad)),
    ("mailing_id", lambda _, altcraft, bad: altcraft.launch_broadcast(bad)),
    ("mailing_id", lambda _, altcraft, bad: altcraft.deactivate(bad)),
]


@pytest.mark.parametrize(("bad", "error_type", "shown"), BAD_IDS)
@pytest.mark.parametrize(("field", "act"), BY_ID, ids=["start", "stop", "activate", "launch_broadcast", "deactivate"])
async def test_invalid_id_is_not_sent(
    field: str, act: Callable[..., Awaitable[object]], bad: object, error_type: type[Exception], shown: str
) -> None:
    async with (
        Listener() as listener,
        DirectClient("t", base_url=listener.url) as direct,
        AltcraftClient(listener.url, "t") as altcraft,
    ):
        with pytest.raises(error_type) as refusal:
            await act(direct, altcraft, bad)
    assert str(refusal.value).startswith(f"{field} must be a positive integer")
    assert str(refusal.value).endswith(shown)
    assert listener.requests == []


@pytest.mark.parametrize("good", [1, 2**31, 10000000125, 2**63 - 1])
def test_a_good_id_is_taken(good: int) -> None:
    assert StartDispatch(good).dispatch_id == StopDispatch(good).dispatch_id == good


class Index:
    """An integer of another library, such as NumPy's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@pytest.mark.parametrize("given", [Number.ONE, Index(1), type("Long", (int,), {})(1)])
def test_whatever_has_index_is_id(given: Any) -> None:
    commands = [
        StartDispatch(given).dispatch_id,
        ReadDispatches(dispatch_id=given).dispatch_id,
        LaunchBroadcast(given).mailing_id,
        LaunchBroadcast(7, limit=given).limit,
        Audience("list", given).id,
    ]
    assert [(type(number), number) for number in commands] == [(int, 1)] * 5
    assert StartDispatch(given) == StartDispatch(1)
    assert StartDispatch(given).request(DirectAuth(Secret("t", environment="X")), None).target.endswith("/1/start")


def test_index_is_checked_like_id() -> None:
    with pytest.raises(ValueError, match="must be a positive integer of at most 63 bits, not 0"):
        StartDispatch(Index(0))


looped: dict[str, Any] = {}
looped["x"] = [{"y": looped}]
wide_loop: dict[str, Any] = {}
wide_loop.update(dict.fromkeys("abc", wide_loop))

pdf = Attachment.from_bytes(b"1", name="a.pdf")

BAD_FIELDS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"audience": ("list", 1), "run_now": True}, TypeError, r"audience must be an Audience .*not \('list', 1\)"),
    ({"audience": "list", "run_now": True}, TypeError, r"audience must be an Audience .*not 'list'"),
    ({"audience": {"kind": "list"}, "run_now": True}, TypeError, r"audience must be"),
    ({"limit": -1}, ValueError, r"limit must be an integer from 0 up, not -1"),
    ({"limit": True}, TypeError, r"limit must be an integer from 0 up, not bool True"),
    ({"limit": "5"}, TypeError, r"limit must be an integer from 0 up, not str '5'"),
    ({"limit": 1.5}, TypeError, r"limit must be an integer from 0 up, not float 1.5"),
    ({"content": []}, TypeError, r"content must be a JSON object .*not list"),
    ({"content": "{}"}, TypeError, r"content must be a JSON object .*not str"),
    ({"content": 1}, TypeError, r"content must be a JSON object .*not int"),
    ({"content": b"{}"}, TypeError, r"content must be a JSON object .*not bytes"),
    ({"content": {"a": math.nan}}, ValueError, r"content\.a must be a number that JSON can say, not nan"),
    ({"content": {"a": [0, {"b": math.inf}]}}, ValueError, r"content\.a\[1\]\.b must be a number .* not inf"),
    ({"content": {"a": (-math.inf,)}}, ValueError, r"content\.a\[0\] must be a number .* not -inf"),
    ({"content": {1: "a"}}, TypeError, r"content must have string keys only, not int \(key 1\)"),
    ({"content": {"a": {None: 1}}}, TypeError, r"content\.a must have string keys only, not NoneType \(key 1\)"),
    ({"content": {"a": [{("x",): 1}]}}, TypeError, r"content\.a\[0\] must have string keys only, not tuple"),
    ({"content": {"a": {1, 2}}}, TypeError, r"content\.a must be a JSON value, not set"),
    ({"content": {"a": b"x"}}, TypeError, r"content\.a must be a JSON value, not bytes"),
    ({"content": {"a": object()}}, TypeError, r"content\.a must be a JSON value, not object"),
    ({"content": {"a": Decimal("1.5")}}, TypeError, r"content\.a must be a JSON value, not Decimal"),
    ({"content": {"a": "\ud800"}}, ValueError, r"content\.a must be text that UTF-8 can say"),
    ({"content": {"\udfff": 1}}, ValueError, r"content must be text that UTF-8 can say"),
    ({"content": looped}, ValueError, r"content must be nested at most 100 deep"),
    ({"content": wide_loop}, ValueError, r"content must be nested at most 100 deep"),
    ({"attachments": ["price.pdf"]}, TypeError, r"attachments\[0\] must be an Attachment .*not str"),
    ({"attachments": [pdf, b"1"]}, TypeError, r"attachments\[1\] must be an Attachment .*not bytes"),
    ({"attachments": "price.pdf"}, TypeError, r"attachments\[0\] must be an Attachment .*not str"),
    ({"attachments": pdf}, TypeError, r"not iterable"),
    ({"attachments": None}, TypeError, r"not iterable"),
]


@pytest.mark.parametrize(("bad", "error_type", "told"), BAD_FIELDS, ids=[told for *_, told in BAD_FIELDS])
@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize("method", ["activate", "launch_broadcast"])
async def test_invalid_field_is_not_sent(
    form: Any, method: str, bad: dict[str, Any], error_type: type[Exception], told: str
) -> None:
    if method == "launch_broadcast":
        bad = {name: value for name, value in bad.items() if name != "run_now"}
    async with Listener() as listener, AltcraftClient(listener.url, "t", wire=form) as altcraft:
        with pytest.raises(error_type, match=told) as refusal:
            await getattr(altcraft, method)(82, **bad)
    assert type(refusal.value) is error_type
    assert listener.requests == []


@pytest.mark.parametrize("flag", [1, 0, "true", "no"])
async def test_flag_is_a_boolean(flag: Any) -> None:
    async with Listener() as listener, AltcraftClient(listener.url, "t") as altcraft:
        with pytest.raises(TypeError, match=f"run_now must be True or False, not {type(flag).__name__} {flag!r}"):
            await altcraft.activate(82, run_now=flag)
        with pytest.raises(TypeError, match="abort_if_running must be True or False"):
            await altcraft.deactivate(82, abort_if_running=flag)
    assert listener.requests == []


@pytest.mark.parametrize("run_now", [None, False])
async def test_audience_needs_a_run(run_now: bool | None) -> None:
    async with Listener() as listener, AltcraftClient(listener.url, "t") as altcraft:
        with pytest.raises(ValueError, match=r"audience=Audience\(kind='list', id=1\) must go with run_now=True"):
            await altcraft.activate(82, audience=Audience("list", 1), run_now=run_now)
    assert listener.requests == []


@pytest.mark.parametrize("kind", ["database", "", "List", None, 1, ["list"], {"list"}, True])
def test_audience_is_list_or_segment(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"audience kind must be 'list' \(a database\) or 'segment', not ") as refusal:
        Audience(kind, 1)
    assert str(refusal.value).endswith(repr(kind))


@pytest.mark.parametrize(("bad", "error_type", "shown"), BAD_IDS)
def test_audience_id_is_checked(bad: Any, error_type: type[Exception], shown: str) -> None:
    with pytest.raises(error_type, match="id must be a positive integer"):
        Audience("segment", bad)


@pytest.mark.parametrize("name", ["", "a/b.pdf", "a\\b.pdf", "a\nb.pdf", "a\x00.pdf", "\u202egpj.exe", "\ud800.pdf"])
def test_attachment_name_is_bare(name: str) -> None:
    with pytest.raises(ValueError, match="attachment name must be a bare file name"):
        Attachment.from_bytes(b"1", name=name)


@pytest.mark.parametrize("media_type", ["pdf", "a/", "/b", "a/b;c", "a/b,c", "a /b", "a/b\n", "ж/б", "a/b\r\nX: y"])  # noqa: RUF001
def test_attachment_media_type_is_plain(media_type: str) -> None:
    with pytest.raises(ValueError, match="attachment media_type must look like 'application/pdf', not "):
        Attachment.from_bytes(b"1", name="a.pdf", media_type=media_type)


@pytest.mark.parametrize("data", ["text", bytearray(b"1"), None, 5])
def test_an_attachment_is_bytes(data: Any) -> None:
    with pytest.raises(TypeError, match=f"attachment data must be bytes, not {type(data).__name__}"):
        Attachment.from_bytes(data, name="a.pdf")


class Colour(str, enum.Enum):  # noqa: UP042 - it is about what StrEnum does not do
    RED = "red"


async def test_enums_are_sent_as_values() -> None:
    content: Any = {Colour.RED: Colour.RED, "n": Number.ONE}
    assert json_object("content", content) == {"red": "red", "n": 1}
    async with Listener(http(200, "<xml><error>0</error></xml>")) as listener:  # noqa: SIM117
        async with AltcraftClient(listener.url, "t", wire="xml") as altcraft:
            await altcraft.launch_broadcast(1, content=content)
    assert b"<content><red>red</red><n>1</n></content>" in listener.requests[0].body


def test_shared_object_is_no_cycle() -> None:
    shared: dict[str, Any] = {"a": 1}
    assert json_object("content", {"x": shared, "y": [shared, shared]}) == {"x": {"a": 1}, "y": [{"a": 1}, {"a": 1}]}


# Limits of size


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_body_limit_is_exact(form: Any) -> None:
    answer = http(200, b'{"error": 0}' if form == "json" else b"<xml><error>0</error></xml>")
    async with Listener(answer) as listener:
        async with AltcraftClient(listener.url, "t", wire=form) as altcraft:
            await altcraft.launch_broadcast(1, content={"a": ""})
        size = len(listener.requests[0].body) + (8 if form == "json" else 11)  # <a/> grows by </a> as well
        async with AltcraftClient(listener.url, "t", wire=form, body_limit=size) as altcraft:
            await altcraft.launch_broadcast(1, content={"a": "x" * 8})
            assert len(listener.requests[1].body) == size
            with pytest.raises(
                ValueError, match=rf"content must keep the body within {size} bytes, not {size + 1}\. body_limit="
            ):
                await altcraft.launch_broadcast(1, content={"a": "x" * 9})
            assert len(listener.requests) == 2


async def test_platform_limits_are_default() -> None:
    file = Attachment.from_bytes(bytes(75_000_001), name="a.bin")
    async with Listener(http(200, b'{"error": 0}')) as listener, AltcraftClient(listener.url, "t") as altcraft:
        with pytest.raises(ValueError, match=r"content must keep the body within 10,000,000 bytes, not 10,000,0\d\d\."):
            await altcraft.launch_broadcast(1, content={"a": "x" * 10_000_000})
        with pytest.raises(
            ValueError, match=r"attachments must keep .* within 100,000,000 bytes, not 100,000,\d\d\d\. att"
        ):
            await altcraft.launch_broadcast(1, attachments=[file])
    assert listener.requests == []


async def test_large_body_raises_no_warning() -> None:
    async with Listener(http(200, b'{"error": 0}')) as listener, AltcraftClient(listener.url, "t") as altcraft:
        await altcraft.launch_broadcast(1, content={"a": "x" * 2**20}, retry=RetryPolicy(attempts=1))
    assert len(listener.requests[0].body) > 2**20


async def test_attachment_limit_is_configurable() -> None:
    async with Listener() as listener, AltcraftClient(listener.url, "t", attachment_limit=80) as altcraft:
        with pytest.raises(ValueError, match=r"within 80 bytes, not \d\d+\. attachment_limit= changes"):
            await altcraft.launch_broadcast(1, attachments=[pdf])
        with pytest.raises(ValueError, match=r"within 80 bytes, not 187\. attachment_limit= changes"):
            await altcraft.launch_broadcast(1, attachments=[Attachment.from_bytes(bytes(70), name="a")])
    assert listener.requests == []


@pytest.mark.parametrize("limit", ["body_limit", "attachment_limit"])
@pytest.mark.parametrize("bad", [0, -1, True, "10", 1.5, None])
def test_limit_is_positive_integer(limit: str, bad: Any) -> None:
    settings: Any = {limit: bad}
    with pytest.raises((TypeError, ValueError), match=f"{limit} must be a positive integer"):
        AltcraftClient("https://example.com", "t", **settings)


# Token


def clients(token: Any = None) -> Iterator[Callable[[], object]]:
    yield lambda: DirectClient(token)
    yield lambda: AltcraftClient("https://example.com", token)


def test_missing_token_names_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPATCHKIT_DIRECT_TOKEN", "DISPATCHKIT_ALTCRAFT_TOKEN"):
        monkeypatch.setenv(variable, "")
    for token in (None, ""):
        for make, name in zip(clients(token), ("DIRECT", "ALTCRAFT"), strict=True):
            with pytest.raises(ValueError, match=f"^no token: pass token=, or set DISPATCHKIT_{name}_TOKEN$"):
                make()


BAD_TOKENS = ["MARK\n", "MARK\r\nX: y", " MARK", "MARK\x00", "MARK\x7f", "MARKé", "Basic MARK", "MARK\t", "\x1b[2JMARK"]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_invalid_token_is_not_shown(token: str) -> None:
    for make in clients(token):
        with pytest.raises(ValueError, match="token must be visible ASCII characters only") as refusal:
            make()
        assert "MARK" not in str(refusal.value)


@pytest.mark.parametrize("token", [b"MARK", 5, ["MARK"], object()], ids=["bytes", "number", "list", "object"])
def test_token_is_text_or_callable(token: Any) -> None:
    for make in clients(token):
        with pytest.raises(
            TypeError, match=f"token must be a string or a callable .*not {type(token).__name__}"
        ) as refusal:
            make()
        assert "MARK" not in str(refusal.value)


@pytest.mark.parametrize("token", [*BAD_TOKENS, "", None, b"MARK", 5])
async def test_callable_must_return_token(token: Any) -> None:
    async with (
        Listener() as listener,
        DirectClient(lambda: token, base_url=listener.url) as direct,
        AltcraftClient(listener.url, lambda: token) as altcraft,
    ):
        for call in (direct.start(1), altcraft.launch_broadcast(1)):
            with pytest.raises(ValueError, match=r"token must be visible ASCII|token= must return a string") as refusal:
                await call
            assert "MARK" not in str(refusal.value)
    assert listener.requests == []


# Host


def test_missing_host_names_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (None, ""):
        with pytest.raises(ValueError, match=r"no host: pass base_url=.*DISPATCHKIT_ALTCRAFT_URL"):
            AltcraftClient(url, "t")
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "")
    with pytest.raises(ValueError, match="no host"):
        AltcraftClient(token="t")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/api",
        "https://example.com/api/v1.1/",
        "https://example.com//",
        "https://example.com?x=1",
        "https://example.com/?",
        "https://example.com#x",
        "https://example.com/#",
        "example.com",
        "example.com:8080",
        "//example.com",
        "ftp://example.com",
        "https://",
        "https:///path",
        "https://[::1",
        "https://example.com:99999",
        "https://example.com:port",
        "mailto:x@example.com",
        " ",
    ],
)
def test_base_url_is_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"base_url must be scheme://host\[:port\], such as https://example.com"):
        origin(url)


@pytest.mark.parametrize("userinfo", ["hunter2@", "user:hunter2@", ":hunter2@", "hunter2:@"])
@pytest.mark.parametrize("rest", ["example.com", "example.com/path", "example.com?q=1", "example.com:99999", "["])
def test_url_credentials_are_not_echoed(userinfo: str, rest: str) -> None:
    for scheme in ("https", "http"):
        with pytest.raises(ValueError, match="base_url must be") as refusal:
            origin(f"{scheme}://{userinfo}{rest}")
        assert "hunter2" not in str(refusal.value)
        assert refusal.value.__context__ is None


BAD_HOSTS = [
    *("example.com ", "a b", "a\x00b", "exam\nple.com", "\texample.com", "a\u00a0b", "a\u200bb", "a\x7fb"),
    *(".", "..", "a..b", ".a", "example.com.", "-a.com", "a-.com", "a.-b", "-"),
    *("a%2fb", "a%b", "a*b", "a,b", "a;b", "a!b", "a'b", "a$b", "a=b", "{a}", "a|b", "a^b", "a~b", "ex\\ample.com"),
    *("[fe80::1%eth0]", "[::1%25lo]", "[1.2.3.4]", "[]", "[v1.a]", "[::1]x", "[::1]:", "::1", "[:::1]"),
    *("a" * 64 + ".com", ".".join(["a" * 60] * 5)),
    *("example.com:0", "example.com:", "example.com:+80", "example.com:\uff18\uff10", "example.com:080000", "a:1:2"),
    *("a:65536", "a:-1", "a: 80", "a:80x", "1.2.3", "0x7f.1", "2130706433", "256.1.1.1", "1.2.3.4.5", "0x7f000001"),
    *("пример.рф", "ex\u0430mple.com", "example\u3002com", "\u24d4xample.com", "exa\u00admple.com"),
]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_bad_host_is_refused_unseen(host: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must be scheme://host\[:port\]") as refusal:
        origin(f"https://{host}")
    text = str(refusal.value).replace("scheme://host[:port], such as https://example.com", "")
    assert len(host) < 4 or host not in text
    for secret in ("", "user:hunter2@"):
        with pytest.raises(ValueError, match=r"^proxy must be the URL of an HTTP proxy") as refusal:
            proxy_url(f"http://{secret}{host}")
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "a_b.example.com",
        "xn--e1afmkfd.xn--p1ai",
        "1a.com",
        "a.b1",
        "a--b.com",
        "[2001:db8::1]:8443",
        "192.0.2.1:1",
    ],
)
def test_good_host_is_taken(host: str) -> None:
    assert str(origin(f"https://{host}")) == f"https://{host}"
    assert proxy_url(f"http://user:p%40ss@{host}").reveal().password == "p@ss"


def test_empty_credentials_are_credentials() -> None:
    with pytest.raises(ValueError, match="without credentials"):
        origin("https://@example.com")


@pytest.mark.parametrize("url", [None, 5, b"https://example.com"])
def test_a_base_url_is_text(url: Any) -> None:
    with pytest.raises(TypeError, match="base_url must be a string"):
        origin(url)


@pytest.mark.parametrize(
    "host",
    ["example.com", "10.0.0.1", "192.168.1.1:80", "localhost.example.com", "127.example.com", "0.0.0.0", "[::2]"],
)
def test_remote_plain_http_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"base_url must be https, not 'http://.*\(insecure=True allows it\)"):
        origin(f"http://{host}")
    assert str(origin(f"http://{host}", insecure=True)).startswith("http://")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "127.8.9.10", "[::1]:80", "LOCALHOST"])
def test_loopback_plain_http_is_accepted(host: str) -> None:
    assert origin(f"http://{host}").scheme == "http"


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com/", "HTTPS://EXAMPLE.com:8443"])
def test_valid_base_url_is_accepted(url: str) -> None:
    assert origin(url).path == "/"


# Time, provider, life


@pytest.mark.parametrize("setting", ["timeout", "attempt_timeout"])
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "5", None])
def test_timeout_is_positive_and_finite(setting: str, bad: Any) -> None:
    settings: Any = {setting: bad}
    with pytest.raises((TypeError, ValueError), match=f"{setting} must be a .*not "):
        DirectClient("t", **settings)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "5"])
async def test_invalid_timeout_sends_nothing(bad: Any) -> None:
    async with Listener() as listener, DirectClient("t", base_url=listener.url) as direct:
        with pytest.raises((TypeError, ValueError), match="timeout must be a "):
            await direct.start(1, timeout=bad)
    assert listener.requests == []


async def test_foreign_command_is_not_sent() -> None:
    async with Listener() as listener, AltcraftClient(listener.url, "t") as altcraft:
        for wrong in (StartDispatch(1), 1, None, StartDispatch):
            with pytest.raises(TypeError, match="command must be a AltcraftCommand, not "):
                await altcraft.perform(wrong)  # type: ignore[arg-type]
    assert listener.requests == []


async def test_closed_client_sends_nothing() -> None:
    async with Listener() as listener:
        async with DirectClient("t", base_url=listener.url) as direct:
            pass
        await direct.close()
        with pytest.raises(RuntimeError, match="this DirectClient is closed"):
            await direct.start(1)
    assert listener.requests == []
