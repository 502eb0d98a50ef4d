"""All the secrets of a configuration, so that logs can be told never to show them."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from relay.config.settings import StoreSettings
from relay.config.store_url import passwords
from relay.errors import SecretUnreadable
from relay.secret import Secret


def secret_values(settings: BaseModel) -> Iterator[str]:
    """Every secret value that can be read now, wherever it stands in these settings."""
    for name in type(settings).model_fields:
        for secret in _find(getattr(settings, name)):
            try:
                yield secret.reveal()
            except SecretUnreadable:
                continue


def _find(value: Any) -> Iterator[Secret]:
    if isinstance(value, StoreSettings):
        yield from passwords(value.url)  # the rest of it is told to people
    elif isinstance(value, Secret):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _find(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _find(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _find(item)
