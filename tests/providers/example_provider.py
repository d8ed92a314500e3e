from datetime import datetime
from typing import Unpack

import attrs

import dispatchkit.provider as dk


@attrs.frozen
class SmsCommand(dk.Command[dk.Secret, str]):  # what it needs to speak: a token; its result: the campaign's state
    provider = "sms"
    campaign: int = attrs.field(validator=dk.positive_id)

    @property
    def target(self) -> int:
        return self.campaign

    def result(self, response: dk.Response, wire: dk.Secret) -> str:
        fields = dk.fields_of(dk.read_json(response.body)) or {}
        if "error" in fields and dk.means_refusal(response.status):  # the provider's own no: nothing was done
            error = dk.AuthenticationError if response.status == 401 else dk.RejectedError
            raise error(wire.redact(str(fields["error"])), status=response.status, code=None)
        if response.status != 200 or fields.get("state") not in {"new", "started"}:
            raise dk.UnexpectedResponseError("no answer of this provider")  # it may have happened
        return str(fields["state"])


class ReadSms(SmsCommand):
    is_read_only = True

    def request(self, wire: dk.Secret, request_id: str | None) -> dk.Request:
        return dk.Request("GET", f"/campaigns/{self.campaign}", {"Authorization": f"Bearer {wire.reveal()}"})


class StartSms(SmsCommand):
    def request(self, wire: dk.Secret, request_id: str | None) -> dk.Request:
        return dk.Request("POST", f"/campaigns/{self.campaign}/start", {"Authorization": f"Bearer {wire.reveal()}"})

    def probe(self, since: datetime) -> dk.Probe[dk.Secret, str]:  # how a lost answer is settled
        def settle(state: str) -> dk.Settlement[str]:
            evidence = dk.Evidence.APPLIED if state == "started" else dk.Evidence.NOT_APPLIED
            return dk.Settlement(evidence, f"its state reads {state}", state)

        return dk.Probe.of(ReadSms(self.campaign), settle)


class SmsClient(dk.Client[dk.Secret]):
    command_type = SmsCommand

    def __init__(self, token: str | None = None, *, base_url: str, **options: Unpack[dk.ClientOptions]) -> None:
        secret = dk.Secret(token, environment="SMS_TOKEN")
        super().__init__(base_url, secret, secret, **options)


class SyncSmsClient(dk.SyncClient[SmsClient]):
    perform = dk.blocking(SmsClient.perform)


SMS = dk.Provider(name="sms", client=SmsClient, commands={"start": StartSms}, token_variable="SMS_TOKEN")
