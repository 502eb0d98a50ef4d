"""Configuration: YAML with positions, interpolation, validation and one report of all problems."""

from relay.config.loader import load, parse
from relay.config.problems import InvalidConfig, Problem
from relay.config.settings import (
    AdminSettings,
    BackfillSettings,
    HeartbeatSettings,
    LogSettings,
    ReconnectSettings,
    Settings,
    StoreSettings,
    UpstreamSettings,
)
from relay.config.targets import (
    AuthSettings,
    BreakerSettings,
    ProbeSettings,
    RetrySettings,
    TargetSettings,
    TlsSettings,
)

__all__ = [
    "AdminSettings",
    "AuthSettings",
    "BackfillSettings",
    "BreakerSettings",
    "HeartbeatSettings",
    "InvalidConfig",
    "LogSettings",
    "ProbeSettings",
    "Problem",
    "ReconnectSettings",
    "RetrySettings",
    "Settings",
    "StoreSettings",
    "TargetSettings",
    "TlsSettings",
    "UpstreamSettings",
    "load",
    "parse",
]
