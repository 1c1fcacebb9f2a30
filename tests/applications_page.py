"""How ``docs/applications.md`` is made from the rows: ``PYTHONPATH=. python tests/applications_page.py``.

`desired/test_apps.py` holds the page to it.
"""

from pathlib import Path

from reconciler.desired.apps import APPS, App, Entry
from reconciler.desired.words import Choice, Value

PAGE = Path(__file__).parents[1] / "docs" / "applications.md"
HEAD = """\
# Applications

`consumers: {vault: {app: vaultwarden}}` brings the variables of an application: what its own documentation, named with
each, says for the provider in use. `env` beside it replaces some, or takes them out by `null`. The page is made from
`reconciler/desired/apps.py` (`tests/applications_page.py`).

A variable needs an entry in the compose file that interpolates one variable of the env file, as ever. One that has
none may stay so as long as the application goes by the same without it, as its documentation says (*unset* below; what
stands in a configuration file of its own is not seen). With a provider for which it needs another value it needs an
entry, and the plan prints the line. What says whom mail is from is left alone while no provider has a `from`. `import`
finds an application by its image, or by variables that only it has, and tells what it leaves out.

**TLS mode** is `starttls`, `implicit` or `none`; **verification** goes by `verify_tls`, **login** by whether the
provider has one. In words of your own the same reads

```yaml
smtp:
  provider: relay
  providers:
    relay:
      {host: mail.example.com, port: 465, username: me, password: {env: WORD}, from: me@x.example, values: {region: eu}}
    trap: {host: mailpit, port: 1025, tls: none, from: me@x.example, values: {region: none}}   # nobody logs in
  consumers:
    shop:
      env:
        MAIL_ENCRYPTION: {starttls: tls, implicit: ssl, none: "null"}
        MAIL_VERIFY: {verified: peer, unverified: none}
        MAIL_FROM: "{from|address}"
        MAIL_REGION: "{values.region}"
        MAIL_DSN: {login: "smtp://{username|url}:{password|url}@{host}:{port}", anonymous: "smtp://{host}:{port}"}
        spring.mail.host: "{host}"
      secrets:
        smtp_password: "{password}"   # the file of the compose file's own secret of that name
```

"""


def page() -> str:
    return HEAD + "\n".join(_section(name, app) for name, app in APPS.items())


def _section(name: str, app: App) -> str:
    lines = [f"## `{name}`: {app.title}", "", f"{app.versions[:1].upper()}{app.versions[1:]}. Source: {app.source}", ""]
    if app.why_none:
        return "\n".join([*lines, f"No preset: {app.why_none}. {app.remedy[:1].upper()}{app.remedy[1:]}.", ""])
    lines += ["| variable | value | unset |", "|---|---|---|"]
    lines += [
        f"| `{variable}` | {_value(entry.value)} | {_unset(entry)} |" for variable, entry in app.variables.items()
    ]
    lines += [""]
    lines += [f"- `{option}`: {why}." for option, why in app.cannot.items()]
    lines += [""] if app.cannot else []
    return "\n".join([*lines, *([app.setup, ""] if app.setup else [])])


def _value(value: Value) -> str:
    if isinstance(value, Choice):
        return ", ".join(f"{word}: {_value(item)}" for word, item in value.options)
    return f"`{value}`" if value else "empty"


def _unset(entry: Entry) -> str:
    return "" if entry.assumed is None else _value(entry.assumed)


if __name__ == "__main__":
    PAGE.write_text(page())
