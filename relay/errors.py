"""Every error this program raises on purpose.

RelayError
├── ConfigError            the configuration file cannot be used           exit 2
├── UsageError             the command was asked for something impossible  exit 2
├── StoreError             the store cannot be used                        exit 3
│   ├── StoreLocked        another process holds it
│   ├── StoreTooNew        written by a newer version
│   ├── StoreBroken        a commit failed or the file is damaged: what was written is unknown
│   ├── StoreUnavailable   a database that cannot be reached now: nothing is wrong with what it holds
│   └── NotLeader          another instance holds the upstream connection
├── DaemonUnavailable      the running relay cannot be asked               exit 3
│   ├── NobodyAnswers      there is nobody to ask
│   └── BrokenOff          it answers, but not in time, or not to the end
├── DaemonRefused          the running relay answered with an error        exit 1 to 3
├── SecretUnreadable       a {file:} or {credential:} secret cannot be read now
└── UpstreamError          the upstream could not be used this time
    ├── BadCredentials     it refused the credentials: wait `auth_retry`, read the secret again
    ├── Throttled          it asked to wait
    └── NotVisible         it says that it cannot see this order
"""


class RelayError(Exception):
    """Base of all errors raised on purpose; `str()` is a sentence for the operator and holds no secret."""


class ConfigError(RelayError):
    """The configuration cannot be used; `str()` is the whole report, one problem a line."""


class UsageError(RelayError):
    """A command was asked for something that cannot be done as asked."""


class StoreError(RelayError):
    """The store cannot be used."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of this program."""


class StoreBroken(StoreError):
    """A commit failed or the file is damaged, so what is on disk is unknown until it is opened again."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or did not answer in time; asking again later is right.

    What was asked for may have been done all the same: every verb can be asked again.
    """


class NotLeader(StoreError):
    """This instance does not, or no longer, hold the upstream connection, so what it read was not written."""


class SecretUnreadable(RelayError):
    """A secret that lives in a file or credential cannot be read now."""


class UpstreamError(RelayError):
    """The upstream could not be used this time; trying again later is right."""


class BadCredentials(UpstreamError):
    """The upstream refused the credentials."""


class Throttled(UpstreamError):
    """The upstream asked to wait.

    Attributes:
        retry_after: seconds to wait before the same request is sent again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotVisible(UpstreamError):
    """The upstream says definitively that it cannot see this order (404)."""


class DaemonUnavailable(RelayError):
    """The running relay cannot be asked: it is off, does not run, or does not let us in."""


class NobodyAnswers(DaemonUnavailable):
    """There is nobody to ask: no relay listens there, or its configuration has it listen nowhere."""


class BrokenOff(DaemonUnavailable):
    """It answers, but not in time, or not to the end."""


class DaemonRefused(RelayError):
    """The relay answered with an error.

    Attributes:
        status: the HTTP status.
        code: the error's code, as in `not_found`.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
