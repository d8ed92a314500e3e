"""The exception tree. Its branches are the outcomes of a call.

::

    DispatchkitError
    ├── RejectedError                 rejected: the provider said no and did nothing
    │   ├── AuthenticationError       the token was not accepted
    │   │   ├── NotAuthenticatedError     Direct 4010
    │   │   ├── BadCredentialsError       Direct 4012
    │   │   └── TokenRequiredError        Altcraft 401
    │   ├── AccessDeniedError         the token is of an unsuitable kind: Direct 4030, Altcraft 403
    │   ├── InappropriateStatusError  the dispatch is in the wrong state: Direct 4031
    │   ├── NotFoundError             no such dispatch: Direct 4040
    │   ├── IncorrectRequestError     Altcraft 400
    │   ├── TariffLimitError          Altcraft 402
    │   └── ThrottledError            HTTP 429: says when to come back
    ├── NotSentError                  not_sent: not one byte of the request left this process
    └── OutcomeUnknownError           unknown: it may have happened and could not be settled
        └── ResponseLostError         a read whose answer was lost: it changed nothing

    LedgerError                       no outcome of a call: the ledger cannot be read or written, so nothing is launched
    ├── RunHeldError                  another process holds the run
    │   └── ChunkHeldError            another process holds the chunk: says when to come back
    ├── RunStoppedError               the run was stopped, and is not resumed by accident
    ├── AccountMismatchError          the run was planned for another account
    └── RepeatedTargetsError          another run launched some of the targets a short time ago

    ProviderSilentError               no outcome of a call: the provider answered nothing, and a chunk was given back

An undocumented code is a plain `RejectedError` with that code. A call that returns is `done`. `ValueError` and
`TypeError` report invalid arguments, before anything is sent.
"""

from __future__ import annotations

from dispatchkit.errors.base import Attempt, DispatchkitError, State
from dispatchkit.errors.call import (
    AccessDeniedError,
    AuthenticationError,
    BadCredentialsError,
    InappropriateStatusError,
    IncorrectRequestError,
    NotAuthenticatedError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    ResponseLostError,
    TariffLimitError,
    ThrottledError,
    TokenRequiredError,
)
from dispatchkit.errors.run import (
    AccountMismatchError,
    ChunkHeldError,
    LedgerError,
    ProviderSilentError,
    RepeatedTargetsError,
    RunHeldError,
    RunStoppedError,
)

__all__ = [
    "AccessDeniedError",
    "AccountMismatchError",
    "Attempt",
    "AuthenticationError",
    "BadCredentialsError",
    "ChunkHeldError",
    "DispatchkitError",
    "InappropriateStatusError",
    "IncorrectRequestError",
    "LedgerError",
    "NotAuthenticatedError",
    "NotFoundError",
    "NotSentError",
    "OutcomeUnknownError",
    "ProviderSilentError",
    "RejectedError",
    "RepeatedTargetsError",
    "ResponseLostError",
    "RunHeldError",
    "RunStoppedError",
    "State",
    "TariffLimitError",
    "ThrottledError",
    "TokenRequiredError",
]

# Tracebacks and pickles name the public module, wherever a class is written.
for _name in __all__:
    if _name != "Attempt":  # attrs resolves the types of its fields in the module that it is written in
        globals()[_name].__module__ = __name__
