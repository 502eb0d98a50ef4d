"""What good files come to: defaults, every way to write a value, interpolation, `defaults`."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from relay.config import InvalidConfig, Settings, TargetSettings, parse
from relay.config.leaves import show_duration
from relay.secret import Secret

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
UPSTREAM = 'upstream: {websocket_url: wss://u.example/ws, rest_url: "https://u.example", partner_id: p, secret: s}\n'
TARGET = f'name: shop, url: "https://shop.example.com/hook", secrets: [{WHSEC}]'
TARGETS = f"targets: [{{{TARGET}}}]\n"


def read(yaml: str, **environ: str) -> Settings:
    return parse(yaml.encode(), "c.yaml", environ=environ)


def one_target(line: str, **environ: str) -> TargetSettings:
    return read(f"{UPSTREAM}targets:\n  - {{{TARGET}, {line}}}\n", **environ).targets[0]


def test_defaults() -> None:
    settings = read(UPSTREAM + TARGETS)
    upstream, target = settings.upstream, settings.targets[0]
    assert (upstream.orders, upstream.handshake_timeout, upstream.auth_retry) == ("all", 10, 300)
    assert (upstream.heartbeat.interval, upstream.heartbeat.timeout) == (30, 10)
    assert (upstream.reconnect.initial, upstream.reconnect.max) == (1, 60)
    backfill = upstream.backfill
    assert (backfill.first_start, backfill.interval, backfill.page_size) == ("baseline", 300, 100)
    assert (backfill.requests_per_minute, upstream.rest_headers) == (10, {})
    assert (settings.store.url.reveal(), settings.store.retention) == ("sqlite:///relay.db", 30 * 86400)
    assert (target.events, target.changes, target.format, target.ordering) == (
        ("order.*",),
        "all",
        "standard",
        "per_order",
    )
    assert (target.timeout, target.concurrency, target.rate_limit) == (15, 16, None)
    assert target.retry.schedule == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert (target.retry.jitter, target.retry.retry_after_max) == (0.2, 86400)
    assert (target.expire_after, target.max_pending) == (7 * 86400, 1_000_000)
    assert (target.breaker.failures, target.breaker.probe.initial, target.breaker.probe.max) == (10, 10, 300)
    assert (target.headers, target.auth, target.proxy) == ({}, None, None)
    assert (target.tls.ca_file, target.tls.cert_file, target.tls.key_file) == (None, None, None)
    assert (target.allow_http, target.allow_networks, target.paused) == (False, (), False)
    assert (settings.admin.listen, settings.admin.token) == (("127.0.0.1", 8787), None)
    assert (settings.admin.allowed_hosts, settings.log.level, settings.log.format) == ((), "info", "auto")


@pytest.mark.parametrize(
    ("written", "seconds"), [("1000ms", 1), ("5s", 5), ("10m", 600), ("'2m'", 120), ("007s", 7), ("1500ms", 1.5)]
)
def test_durations(written: str, seconds: float) -> None:
    assert one_target(f"timeout: {written}").timeout == seconds


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (0.5, "500ms"), (1.5, "1500ms"), (90, "90s"), (3600, "1h"), (172800, "2d")]
)
def test_durations_are_shown_as_written(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_a_zero_interval_where_it_means_never() -> None:
    upstream = UPSTREAM.replace("secret: s", "secret: s, backfill: {interval: 0s}")
    assert read(upstream + TARGETS).upstream.backfill.interval == 0


def test_orders_as_a_list() -> None:
    upstream = UPSTREAM.replace("secret: s", "secret: s, orders: [h9NpKm75gRnX7GWaFATwYn, 007]")
    assert read(upstream + TARGETS).upstream.orders == ("h9NpKm75gRnX7GWaFATwYn", "007")


def test_texts_keep_their_characters_whatever_yaml_would_make_of_them() -> None:
    for text in ("0123", "1_000", "1:30", "2026-11-22", "no", "1e3", "0x1F"):
        assert read(UPSTREAM.replace("secret: s", f"secret: {text}") + TARGETS).upstream.secret.reveal() == text


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "'true'"])
def test_true(word: str) -> None:
    assert one_target(f"allow_http: {word}").allow_http is True


def test_admin() -> None:
    admin = read(UPSTREAM + TARGETS + 'admin: {listen: "[::]:0", token: t, allowed_hosts: [Relay.example]}').admin
    assert admin.listen == ("::", 0)
    assert admin.token is not None
    assert admin.token.reveal() == "t"
    assert admin.allowed_hosts == ("Relay.example",)
    assert read(UPSTREAM + TARGETS + "admin: {listen: null}").admin.listen is None
    assert read(UPSTREAM + TARGETS + "admin: {listen: 'localhost:1'}").admin.listen == ("localhost", 1)


def test_loopback_needs_neither_https_nor_a_network() -> None:
    for host in ("localhost", "127.0.0.1", "127.1.2.3:8080", "[::1]"):
        yaml = (UPSTREAM + TARGETS).replace("https://shop.example.com", f"http://{host}")
        assert read(yaml).targets[0].url.reveal() == f"http://{host}/hook"


def test_a_private_address_that_is_meant() -> None:
    yaml = (
        (UPSTREAM + TARGETS).replace("shop.example.com", "10.1.2.3").replace("}]", ", allow_networks: [10.0.0.0/8]}]")
    )
    assert read(yaml).targets[0].allow_networks == (ip_network("10.0.0.0/8"),)


def test_an_upstream_on_loopback() -> None:
    upstream = UPSTREAM.replace("wss://u.example", "ws://127.0.0.1:9").replace("https://u.example", "http://[::1]:9")
    assert read(upstream + TARGETS).upstream.websocket_url == "ws://127.0.0.1:9/ws"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://shop.example.com", "https://shop.example.com"),
        ("https://Shop.example.com:8443/hook", "https://shop.example.com:8443/hook"),
        ("https://h.example/services/T0/KEY", "https://h.example/services/[redacted]"),
        ("https://u:KEY@h.example/?k=KEY", "https://[redacted]@h.example/?[redacted]"),
        ("https://[2606:4700::1]/a/", "https://[2606:4700::1]/a/"),
    ],
)
def test_a_target_shows_only_what_is_no_key(url: str, shown: str) -> None:
    target = TargetSettings(name="shop", url=Secret.of(url), secrets=(Secret.of(WHSEC),))
    assert target.url_redacted == shown


@pytest.mark.parametrize(
    ("patterns", "wanted", "unwanted"),
    [
        ('["order.*"]', ["order.new", "order.unknown"], ["relay.test", "orders.new", "order"]),
        ('["*"]', ["order.new"], ["relay.test", "relay.target.parked"]),
        ("[order.finished]", ["order.finished"], ["order.failed", "order.finished.x"]),
    ],
)
def test_events(patterns: str, wanted: list[str], unwanted: list[str]) -> None:
    target = one_target(f"events: {patterns}")
    assert [target.wants(event_type) for event_type in wanted] == [True] * len(wanted)
    assert [target.wants(event_type) for event_type in unwanted] == [False] * len(unwanted)


def test_variables_become_what_the_setting_is() -> None:
    assert one_target('concurrency: "${N}"', N="4").concurrency == 4
    settings = read(
        UPSTREAM.replace("secret: s", 'secret: "a${A}b${B:-dflt}c$${A}$"')
        + TARGETS
        + 'admin: {listen: "127.0.0.1:${PORT}"}\nlog:\n  level: ${LEVEL:-debug}\n',
        A="1",
        B="",
        PORT="9",
    )
    assert settings.upstream.secret.reveal() == "a1bdfltc${A}$"
    assert settings.admin.listen == ("127.0.0.1", 9)
    assert settings.log.level == "debug"


def test_a_variable_is_not_looked_through_again() -> None:
    yaml = UPSTREAM.replace("secret: s", 'secret: "${A}"') + TARGETS
    assert read(yaml, A="${A}").upstream.secret.reveal() == "${A}"


def test_an_empty_variable_without_quotes_is_null() -> None:
    assert read(UPSTREAM + TARGETS + "admin:\n  token: ${TOKEN:-}\n").admin.token is None


def test_sections_without_lines_are_defaults() -> None:
    settings = read(UPSTREAM + TARGETS + "store:\nadmin:\nlog: # level: debug\ndefaults:\n")
    assert settings.log.level == "info"


def test_defaults_merge_by_key_and_lists_replace() -> None:
    settings = read(
        UPSTREAM
        + "defaults: {timeout: 9s, retry: {schedule: [1s, 2s], jitter: 0.5}, headers: {X-All: a, X-Both: c}}\n"
        + f"targets:\n  - {{{TARGET}}}\n"
        + f"  - {{{TARGET.replace('shop,', 'b,')}, timeout: 3s, retry: {{schedule: [7s]}}, headers: {{X-Both: b}}}}\n"
    )
    first, second = settings.targets
    assert (first.timeout, first.retry.schedule, first.retry.jitter) == (9, (1, 2), 0.5)
    assert (second.timeout, second.retry.schedule, second.retry.jitter) == (3, (7,), 0.5)
    assert {name: value.reveal() for name, value in second.headers.items()} == {"X-All": "a", "X-Both": "b"}


def test_settings_cannot_be_changed_and_unknown_ones_not_made() -> None:
    settings = read(UPSTREAM + TARGETS)
    with pytest.raises(ValidationError):
        settings.log.level = "debug"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra_forbidden"):
        TargetSettings(name="a", url=Secret.of("https://a.example"), secrets=(Secret.of(WHSEC),), tiemout=1)  # type: ignore[call-arg]


def test_reports_are_bounded() -> None:
    with pytest.raises(InvalidConfig) as caught:
        read("".join(f"key{number}: 1\n" for number in range(500)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "c.yaml: and 402 more"
    assert len(caught.value.problems) == 502
