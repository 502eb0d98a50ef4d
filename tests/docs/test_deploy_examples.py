"""examples/deploy: the manifests are what their schemas ask for and agree with the image, the code and `check`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from relay.config import Settings, load
from relay.daemon import DRAIN_GRACE, LEAVE_GRACE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()
SPARE_SECONDS = 10


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (one for one in manifests() if one["kind"] == kind)
    return found


def pod() -> dict[str, Any]:
    return manifest("Deployment")["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return found


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def instances() -> list[dict[str, Any]]:
    return [service for name, service in compose()["services"].items() if name != "postgres"]


def instructions(word: str) -> list[str]:
    """What the image's last stage says after this word."""
    last_stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    return re.findall(rf"^{word} (.*)$", last_stage, re.M)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_valid(version: str) -> None:
    for one in manifests():
        kubernetes_validate.validate(one, version, strict=True)


def test_a_manifest_with_a_misspelt_key_is_not_valid() -> None:
    wrong = manifest("Deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_all_select_the_same_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert all(one["labelSelector"]["matchLabels"] == labels for one in pod()["topologySpreadConstraints"])
    assert manifest("PodDisruptionBudget")["spec"]["minAvailable"] < manifest("Deployment")["spec"]["replicas"]


def test_the_pod_may_do_no_more_than_the_image() -> None:
    assert instructions("USER") == [str(pod()["securityContext"]["runAsUser"])]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    own = container()["securityContext"]
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_ports_and_paths_are_those_of_the_image() -> None:
    assert [str(one["containerPort"]) for one in container()["ports"]] == instructions("EXPOSE")
    mounts = {one["mountPath"] for one in container()["volumeMounts"]}
    (command,) = instructions("CMD")[-1:]
    assert {"/etc/houdini-relay", *instructions("VOLUME")} <= mounts
    assert '"/etc/houdini-relay/config.yaml"' in command
    assert list(manifest("ConfigMap")["data"]) == ["config.yaml"]
    assert container()["image"].rpartition("/")[2].partition(":")[0] == "houdini-relay"
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_both_get_the_time_that_a_stop_may_take() -> None:
    needed = DRAIN_GRACE + LEAVE_GRACE + SPARE_SECONDS
    assert pod()["terminationGracePeriodSeconds"] >= needed
    assert all(int(one["stop_grace_period"].removesuffix("s")) >= needed for one in instances())


def test_every_secret_that_is_named_is_in_the_secret() -> None:
    keys = set(manifest("Secret")["stringData"])
    (volume,) = (one for one in pod()["volumes"] if "secret" in one)
    (mount,) = (one for one in container()["volumeMounts"] if one["name"] == volume["name"])
    files = re.findall(rf"{mount['mountPath']}/([\w-]+)", manifest("ConfigMap")["data"]["config.yaml"])
    variables = [one["valueFrom"]["secretKeyRef"]["key"] for one in container()["env"]]
    assert {*files, *variables} == keys
    assert all("REPLACE-ME" in value for value in manifest("Secret")["stringData"].values())


def test_check_takes_the_configuration_of_the_manifests(tmp_path: Path) -> None:
    values = manifest("Secret")["stringData"] | {"orders-webhook-secret": SIGNING}
    for name, value in values.items():
        (tmp_path / name).write_text(value + "\n")
    text = manifest("ConfigMap")["data"]["config.yaml"].replace("/run/secrets/houdini-relay", str(tmp_path))
    settings = read(tmp_path, text, {"HOUDINI_PARTNER_ID": "partner"})
    assert settings.store.url.known == values["store-url"]
    assert str(settings.store.url) == "postgresql://relay@postgres.example.com:5432/relay"
    assert settings.admin.listen == ("0.0.0.0", int(instructions("EXPOSE")[0]))  # within its pod


def test_check_takes_the_configuration_of_the_composition(tmp_path: Path) -> None:
    relay, *others = instances()
    assert len(others) == 1
    text = compose()["configs"]["relay"]["content"]
    assert not re.search(r"(?<!\$)\$\{", text), "Compose would put its own variables in"
    variables = {name: "value-of-twenty-bytes" for name in relay["environment"]}
    variables |= {"ORDERS_WEBHOOK_SECRET": SIGNING, "ORDERS_URL": "https://shop.example.com/hook"}
    settings = read(tmp_path, text.replace("$$", "$"), variables)
    service, database = compose()["services"]["postgres"]["environment"], str(settings.store.url)
    assert database == f"postgresql://{service['POSTGRES_USER']}@postgres:5432/{service['POSTGRES_DB']}"
    (config,) = relay["configs"]
    assert config["target"] == "/etc/houdini-relay/config.yaml"
    assert relay["read_only"] is True
    assert relay["cap_drop"] == ["ALL"]
    assert relay["tmpfs"].partition(":")[0] in instructions("VOLUME")
    assert f"uid={instructions('USER')[0]}" in relay["tmpfs"]
    assert (DEPLOY / relay["build"]).resolve() == ROOT
    ports = [port.split(":") for one in instances() for port in one["ports"]]
    assert [port[0] for port in ports] == ["127.0.0.1", "127.0.0.1"]
    assert [port[2] for port in ports] == instructions("EXPOSE") * 2


def test_the_composition_asks_for_every_variable_and_its_comment_names_them() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    body = "\n".join(strings([one["environment"] for one in compose()["services"].values()]))
    asked = set(re.findall(r"\$\{(\w+):\?", body))
    assert asked == set(re.findall(r"^#   (\w+)=", text, re.M))
    assert not re.findall(r"\$\{\w+\}", body), "unset it would be empty"


def read(folder: Path, text: str, variables: dict[str, str]) -> Settings:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ={**os.environ, **variables})
