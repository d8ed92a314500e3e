"""Add messages to a dispatch of Direct: the values, and the command that sends one batch of them.

The provider's pages: https://api.docs.direct.i-dgtl.ru
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import cast

import attrs

from dispatchkit.core.command import ContradictoryAnswerError, Headers, Request, UnexpectedResponseError
from dispatchkit.core.decode import fields_of
from dispatchkit.core.validators import JsonValue, as_int, int_in_range, json_object, positive_id
from dispatchkit.direct.commands import DirectAuth, DirectCommand
from dispatchkit.values import SHOWN, Value, shown_as

__all__ = [
    "BATCH_SIZE",
    "AddMessages",
    "AddedMessage",
    "AddedMessages",
    "Message",
    "batch_of",
    "check_batch_size",
    "check_iterable",
]

BATCH_SIZE = 1000
"""Messages of one request. The provider does not document its largest batch."""

_ASK = (
    "These messages may have been added, so do not add them again. The dispatch's number of messages tells: "
    "direct.dispatch(id).messages (on the command line: dispatchkit direct status ID)."
)


def _length(text: str | None) -> int | None:
    return None if text is None else len(text)


def _characters(text: str) -> str:
    return f"<{len(text)} characters>"


def _keys(fields: Mapping[str, JsonValue] | None) -> list[str] | None:
    return None if fields is None else list(fields)


def _destination(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text such as '79990001122', not {type(value).__name__}")
    # No message quotes the value: it identifies a person.
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"{attribute.name} must be printable text such as '79990001122', without blanks around it, "
            f"not {len(value):,} other characters"
        )


def _substitutions(value: Mapping[str, JsonValue] | None) -> dict[str, JsonValue] | None:
    return None if value is None else json_object("substitutions", value)


@attrs.frozen
class Message(Value):
    """One message for a dispatch. Neither its repr nor its `to_dict` shows the destination or a substitution.

    Raises:
        TypeError: ``destination`` is no text, or ``substitutions`` is no mapping or holds what is no JSON.
        ValueError: ``destination`` is empty or has blanks around it, or ``substitutions`` cannot be said in JSON.

    Example:
        >>> Message("79818269375", {"name": "Anna"})
        Message(destination=<11 characters>, substitutions=<1 fields>)
    """

    destination: str = attrs.field(
        validator=_destination, repr=_characters, metadata=shown_as("destination_length", _length)
    )
    """The recipient, such as a phone number: ``"79818269375"``."""
    substitutions: Mapping[str, JsonValue] | None = attrs.field(
        default=None,
        converter=_substitutions,
        hash=False,  # a dict has none
        repr=lambda fields: "None" if fields is None else f"<{len(fields)} fields>",
        metadata=shown_as("substitution_keys", _keys),
    )
    """The values of the variables in the dispatch's text. None: the field is left out."""


@attrs.frozen(kw_only=True)
class AddedMessage(Value):
    """The provider's answer to one message: it was added, or refused with a code. See `AddedMessages`.

    Example:
        >>> AddedMessage(index=0, destination="79818228228", error_code=7401).is_added
        False
    """

    __to_dict_also__ = ("is_added",)

    index: int
    """The position of the message in what the caller gave, from 0."""
    destination: str = attrs.field(repr=_characters, metadata=shown_as("destination_length", _length))
    message_uuid: str | None = None
    """The provider's id of a message that was added."""
    error_code: int | None = None
    """The provider's code of a message that was refused. Its page does not explain the codes, such as 7401."""

    @property
    def is_added(self) -> bool:
        """Whether the message was added."""
        return self.error_code is None


@attrs.frozen
class AddedMessages(Value):
    """The provider has answered for each message of a batch. A batch that is done may hold refused messages.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     added = await direct.add_messages(7, [Message("79818269375"), Message("nobody")])
        ...     added.added, added.refused, added.results[1].error_code
        (1, 1, 7401)
    """

    __to_dict_also__ = ("added", "refused")

    dispatch_id: int
    results: tuple[AddedMessage, ...] = attrs.field(repr=lambda results: f"<{len(results)} results>", metadata=SHOWN)
    """One for each message, in the order in which they were given."""

    @property
    def added(self) -> int:
        """Number of messages that were added."""
        return sum(result.is_added for result in self.results)

    @property
    def refused(self) -> int:
        """Number of messages that the provider refused."""
        return len(self.results) - self.added


def _position(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    del instance
    int_in_range(attribute.name, value, minimum=0)


def _messages(value: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(value)


def check_batch_size(size: int) -> None:
    """Check the most messages of a request.

    Raises:
        TypeError: It is no integer.
        ValueError: It is less than 1.
    """
    int_in_range("batch_size", size, minimum=1)


def check_iterable(messages: object) -> None:
    """Check that these may be messages, of which each is checked later.

    Raises:
        TypeError: It is one message, or nothing that can be iterated.
    """
    kind = type(messages)
    if isinstance(messages, Message | str | Mapping) or not isinstance(messages, Iterable | AsyncIterable):
        raise TypeError(f"messages must be an iterable of Message, not {kind.__name__}")


def batch_of(messages: Iterable[Message], size: int) -> tuple[Message, ...]:
    """The messages of one request. No more are taken than one too many.

    Raises:
        TypeError: ``messages`` is one message, or nothing that can be iterated.
        ValueError: There are more.
    """
    check_batch_size(size)
    check_iterable(messages)
    taken: list[Message] = []
    for message in messages:
        taken.append(message)
        if len(taken) > size:
            raise ValueError(
                f"messages must be at most {size:,}, one request: add_messages_many() sends any number in batches"
            )
    return tuple(taken)


@attrs.frozen
class AddMessages(DirectCommand[AddedMessages]):
    """Add one batch of messages to a dispatch that was not started yet.

    ``POST /api/v1/dispatch/{dispatchId}/messages``. The provider documents no request id and no state that shows one
    message. So an unclear batch is never sent again: its outcome stays unknown.

    Raises:
        TypeError: ``dispatch_id`` is not an integer, or one of ``messages`` is no `Message`; the text names its index.
        ValueError: ``dispatch_id`` is not positive, there are no messages, or two have one destination. The provider
            answers by destination, so their answers could not be told apart.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     await direct.perform(AddMessages(7, [Message("79818269375", {"name": "Anna"})]))
        AddedMessages(dispatch_id=7, results=<1 results>)
    """

    dispatch_id: int = attrs.field(converter=as_int, validator=positive_id)
    messages: tuple[Message, ...] = attrs.field(
        converter=_messages,
        repr=lambda messages: f"<{len(messages)} messages>",
        metadata=shown_as("message_count", len),
    )
    first: int = attrs.field(default=0, converter=as_int, validator=_position, kw_only=True)
    """The position of the first message in the caller's list, of which this is a batch. Default: 0."""

    def __attrs_post_init__(self) -> None:
        if not self.messages:
            raise ValueError("messages must hold a message: there are none")
        places: dict[str, int] = {}
        for index, message in enumerate(cast("tuple[object, ...]", self.messages), self.first):
            if not isinstance(message, Message):  # callers without a type checker
                raise TypeError(
                    f"messages[{index}] must be a Message such as Message('79990001122'), not {type(message).__name__}"
                )
            earlier = places.setdefault(message.destination, index)
            if earlier != index:
                raise ValueError(
                    f"messages[{index}] has the destination of messages[{earlier}]: one batch takes it once"
                )

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.dispatch_id

    def unknown_hint(self, wire: DirectAuth) -> str:
        """See `Command.unknown_hint`: nothing repeats such a batch."""
        del wire
        return _ASK

    def request(self, wire: DirectAuth, request_id: str | None) -> Request:
        """See `Command.request`."""
        del request_id  # Direct has no request ids
        body = json.dumps([_wire(message) for message in self.messages], ensure_ascii=False, separators=(",", ":"))
        headers = Headers({**wire.headers(), "Content-Type": "application/json"})
        return Request("POST", f"/api/v1/dispatch/{self.dispatch_id}/messages", headers, body.encode())

    def read(self, parsed: object) -> AddedMessages:
        """Match each entry to its message by the destination: the page does not say that the order is kept."""
        if not isinstance(parsed, list):
            raise UnexpectedResponseError("not a list of messages")
        answers: dict[str, AddedMessage] = {}
        places = {message.destination: index for index, message in enumerate(self.messages, self.first)}
        for entry in cast("list[object]", parsed):
            answer = _answer(entry, places)
            if answer.destination in answers:
                raise ContradictoryAnswerError("it answers for one message twice")
            answers[answer.destination] = answer
        if len(answers) != len(self.messages):
            missing = len(self.messages) - len(answers)
            raise UnexpectedResponseError(f"it does not answer for {missing:,} of {len(self.messages):,} messages")
        return AddedMessages(self.dispatch_id, tuple(answers[message.destination] for message in self.messages))


def _wire(message: Message) -> dict[str, JsonValue]:
    fields: dict[str, JsonValue] = {"destination": message.destination}
    if message.substitutions is not None:
        fields["substitutions"] = message.substitutions
    return fields


def _answer(entry: object, places: Mapping[str, int]) -> AddedMessage:
    fields = fields_of(entry) or {}
    destination, uuid, code = fields.get("destination"), fields.get("messageUuid"), fields.get("errorCode")
    if not isinstance(destination, str) or destination not in places:
        raise UnexpectedResponseError("it answers for a message that was not sent")
    if uuid is not None and code is not None:
        raise ContradictoryAnswerError("it says of one message that it was added and refused")
    index = places[destination]
    if isinstance(uuid, str) and uuid:
        return AddedMessage(index=index, destination=destination, message_uuid=uuid)
    if type(code) is int:
        return AddedMessage(index=index, destination=destination, error_code=code)
    raise UnexpectedResponseError("it neither adds nor refuses a message")
