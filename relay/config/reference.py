"""docs/configuration.md from the settings themselves: `python -m relay.config.reference` prints it."""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from relay.config.leaves import Leaf
from relay.config.loader import sections_in
from relay.config.section import Section
from relay.config.settings import Settings

_INTRODUCTION: Final = """\
<!-- Made by `python -m relay.config.reference > docs/configuration.md`; change the settings' descriptions instead. -->
# Configuration

One YAML file, `config.yaml` unless `-c` or `HOUDINI_RELAY_CONFIG` says otherwise. `config.example.yaml` shows every
key; this page lists them with their bounds. `houdini-relay init` writes a file to begin with, and `houdini-relay check`
judges one without starting anything. Editors that speak YAML complete and check keys by the JSON Schema that
`houdini-relay schema > config.schema.json` prints, with `# yaml-language-server: $schema=config.schema.json` as the
file's first line.

All problems are reported at once, and nothing starts while there is one (exit code 2):

```
config.yaml:12:5: targets[0].tiemout: unknown key; did you mean "timeout"?
```

## How values are written

- Durations: a whole number and a unit, as in `500ms` `5s` `10m` `2h` `7d`. Rates: `50/s`, `300/m`, `1000/h`.
- `true` and `false` are the only words for yes and no; numbers are decimal.
- `${VAR}` and `${VAR:-default}` stand for environment variables anywhere in a value; the default counts when the
  variable is unset or empty. `$${` is a literal `${`. What a variable holds is not looked through again.
  Within `{...}` or `[...]` put quotes around a value that has `${...}` in it.
- Anchors, aliases, tags, merge keys, duplicate keys and several documents in one file are refused;
  so is a file over 256 kB. `defaults` does what anchors are used for elsewhere.

## Secrets

Every setting marked *secret* takes one of three forms:

| form | meaning |
|---|---|
| `whsec_...` or `${VAR}` | the value itself, or from the environment |
| `{file: /run/secrets/name}` | a file's content, at most 64 kB, without one trailing newline |
| `{credential: name}` | the same from systemd's `LoadCredential=` (`$CREDENTIALS_DIRECTORY`) |

Secrets appear in no log, error, answer or page. `run`, `check` and `demo` need all of them; other commands only what
they use. `run` reads all of them at the start, to judge them, and those in files and credentials again:

| what | when |
|---|---|
| `upstream.secret` | for each connection and each REST request |
| `upstream.rest_headers` | for each REST request |
| `store.url` | for each connection to the database |
| a target's `secrets`, `url` and `proxy`, the files of `tls` | for the first attempt and at a reload, not in between |
| a target's `headers`, `auth.basic`, `auth.bearer`, and name and password in its `url` | for each attempt |
| a target's `auth.oauth2`, and `proxy` and `tls` on the way to its `token_url` | for each token that is fetched |
| `admin.token` | for each request that needs it |

So reload after every rotation: everything that a file holds counts from then on, and a file that cannot be used refuses
the reload. A credential stays as systemd copied it when the unit was started: after its rotation restart the unit.

## defaults

Any setting of a target except `name`, `url` and `secrets`. A target's own settings win: mappings are merged key by
key, lists are replaced. Secrets in another form and `auth` are replaced as a whole.

## A target's address

`https://` unless `allow_http` is true or the host is loopback (`localhost`, `127.0.0.0/8`, `::1`). A private or
reserved address is refused unless it lies in one of `allow_networks`; a name is judged each time it is dialled.
"""


def render() -> str:
    """The page, as Markdown."""
    return "\n".join([_INTRODUCTION, *_section(Settings, "")])


def _section(section: type[Section], path: str) -> Iterator[str]:
    if path:
        yield f"## {path}\n"
        yield (section.__doc__ or "").strip() + "\n"
        yield "| key | write | default | meaning |\n|---|---|---|---|"
        for key, field in section.model_fields.items():
            yield _row(key, field)
        yield ""
    for key, field in section.model_fields.items():
        for inner in sections_in(field.annotation):
            listed = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _section(inner, f"{path}.{key}{listed}" if path else f"{key}{listed}")


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", _written(field).replace("|", "\\|"), _default(field), field.description or "")
    return "| " + " | ".join(cells) + " |"


def _written(field: FieldInfo) -> str:
    leaf = leaf_of(field.metadata)
    if leaf is not None:
        return leaf.words
    if sections_in(field.annotation):
        return "a mapping, see below"
    if get_origin(field.annotation) is dict:
        return "a mapping of names and values (secret)"
    item = item_leaf(field.annotation)
    return f"a list; each {item.words}" if item else "a list"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Section):
        return ""
    leaf, item = leaf_of(field.metadata), item_leaf(field.annotation)
    if value is None:
        return "`null`"
    if leaf is None and isinstance(value, tuple):
        return "`[" + ", ".join(_quoted(item.show(one) if item else str(one)) for one in value) + "]`"
    return f"`{leaf.show(value) if leaf else value}`"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w.:/-]+", text) else f'"{text}"'


def leaf_of(metadata: Any) -> Leaf | None:
    """The leaf among a setting's annotations, if it is one value."""
    return next((entry for entry in metadata if isinstance(entry, Leaf)), None)


def item_leaf(annotation: Any) -> Leaf | None:
    """The leaf of a list's items, or of a mapping's values."""
    for inner in reversed(get_args(annotation)):
        if get_origin(inner) is Annotated:
            return leaf_of(inner.__metadata__)
    return None


if __name__ == "__main__":
    sys.stdout.write(render())
