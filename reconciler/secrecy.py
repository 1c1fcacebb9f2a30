"""What may be shown: a live value is withheld unless it is known to be public; what is a secret by name or by form.

The directory is public, whoever reads a plan may read it. What is live is not: a text there may be a password that
somebody typed in the wrong place. Only what is known to be harmless is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any


class Public(str):
    """A live text that may be shown: whoever read it knows by its type that it is no secret."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Withheld:
    """A live value that is not shown. It equals the value itself, so that what differs still does."""

    value: Any

    def __eq__(self, other: object) -> bool:
        """Compare what it stands for."""
        return bool(self.value == (other.value if isinstance(other, Withheld) else other))

    def __hash__(self) -> int:
        """Hash what it stands for."""
        return hash(self.value)

    def __repr__(self) -> str:
        """Say that there is one, and nothing of it."""
        return "another value"


# ------------------------------------------------------------------------------------------------------ a live value
# Patterns are texts, which `re` compiles at their first use and keeps: most runs look at no live text.
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off"})
_MEASURE = r"\d{1,12}(\.\d{1,6})?\s?([smhd]|ms|[kmgt]i?b?)(\s?/\s?\d{1,6}\s?[smhd]?)?|\d{1,9}\s?/\s?\d{0,6}[smhd]"
_COUNTED = (
    r"(^|[.-])(attempts|capacity|count|depth|errors|hops|interval|length|limit|max|min|offset|port|priority|retries|score"
    r"|size|threads|threshold|timeout|ttl|weight|workers)(\.\d+)?$"
)


def disclosed(value: Any, desired: Any = None, harmless: Callable[[str], bool] = lambda _: False) -> Any:
    """Return a live value as it may be shown beside the desired one: `Withheld` for what is not known to be public.

    Public are numbers by type, switches, and what the directory says itself; of other texts ``harmless`` decides. Of
    maps and lists this is asked of each part; a map with names that the directory does not have is withheld as a whole.
    What is no text (a verdict, a reference) is returned as it is.
    """
    if isinstance(value, Mapping):
        if not isinstance(desired, Mapping) or not value.keys() <= desired.keys():
            return Withheld(value) if value else value
        parts: Any = type(value)
        return parts({name: disclosed(item, desired[name], harmless) for name, item in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        wanted = tuple(desired) if isinstance(desired, list | tuple | set | frozenset) else ()
        beside = wanted if len(wanted) == len(value) else (None,) * len(value)
        return tuple(
            item if isinstance(item, str) and item in wanted else disclosed(item, want, harmless)
            for item, want in zip(value, beside, strict=True)
        )
    if not isinstance(value, str | bytes) or isinstance(value, Public):
        return value
    said = isinstance(value, str) and (value in ("", desired) or is_switch(value) or harmless(value))
    return value if said else Withheld(value)


def is_switch(text: str) -> bool:
    """Whether a text is on or off in any of the usual words."""
    return text.lower() in _SWITCHES


def is_measure(key: str, text: str) -> bool:
    """Whether a setting is an amount or a network, by its form: ``30/1d``, ``10MiB``, ``172.18.0.0/16``.

    A bare number may as well be a password; it is an amount under a key that says so.
    """
    if text.isdigit():
        return re.search(_COUNTED, key) is not None
    try:
        ip_network(text, strict=False)
    except ValueError:
        return re.fullmatch(_MEASURE, text, re.IGNORECASE) is not None
    return True


# ------------------------------------------------------------------------------------------- by name, and by its form
_WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+"
_SECRET_WORDS = frozenset(
    (
        *("apikey", "authorization", "bearer", "cred", "credential", "credentials", "creds", "jwt", "otp"),
        *("kennwort", "passphrase", "passwd", "password", "passwords", "passwort", "private", "psk", "psw", "pswd"),
        *("basicauth", "masterkey", "mnemonic", "passcode", "passkey", "pwd", "pword", "secret", "secrets", "token"),
        *("tokens", "totp"),
        *("connstr", "connstring", "contrasena", "geheimnis", "haslo", "parola", "schluessel", "senha", "wachtwoord"),
        "zugangsdaten",
    )
)
_LAST_WORDS = frozenset(  # before another word they tell what that is for: AUTH_METHOD, keyId
    (
        *("auth", "cookie", "cookies", "dsn", "headers", "hmac", "key", "keys", "licence", "license", "pass", "pepper"),
        *("pin", "puk", "pw", "salt", "seed", "signature", "webhook"),
    )
)
_FORMS = frozenset(  # behind a secret's name they tell how it is written
    ("b", "base", "code", "content", "data", "enc", "encoded", "plain", "raw", "string", "text", "value")
)
_NO_PASS = frozenset({"bypass", "compass", "encompass", "overpass", "surpass", "trespass", "underpass"})
_ENDINGS = (
    *("accesskey", "apikey", "licensekey", "passphrase", "passwd", "password", "privatekey", "pwd", "secret"),
    *("authkey", "connectionstring", "encryptionkey", "pw", "secretkey", "signingkey", "token"),
)
_SECRET_PAIRS = frozenset(  # each word by itself tells nothing
    [
        ("pass", "phrase"),
        ("pass", "word"),
        ("connection", "string"),
        *((it, "code") for it in ("access", "recovery", "unlock")),
    ]
)
_ASIDE = frozenset(  # of a secret, and no secret
    (
        *("dir", "directory", "enabled", "expiry", "file", "length", "lifetime", "method", "path", "policy", "ttl"),
        *("type", "mechanism", "mechanisms"),
    )
)
_PLAIN_WORDS = frozenset({"none", "null", "plain", "login", "cram-md5", "xoauth2", "starttls", "tls", "ssl", "auto"})
_MARKED = (
    r"PRIVATE KEY|AGE-SECRET-KEY-|^\$[\w-]+\$|^\{[\w.-]+\}\S|^_[./0-9A-Za-z]{19}$|\b(basic|bearer|token) +\S"
    r"|(authorization|cookie|api[-_]?key|token|secret|passw(or)?d|passphrase|pwd)['\"]? *[:=] *['\"]?\w"
    r"|\b(sk|pk|rk|re|key|xkeysib|xsmtpsib|gh[opsu]|github_pat|glpat|xox[a-z])[-_](?=\D{0,40}\d)[\w-]{8,}"
    r"|\b(?-i:SG|eyJ\w{8,2000})\.[\w-]{16,}"
    r"|[?&;](pass|pw|key|auth)=[^&;\s]|^(?!(mailto|acct|sips?|xmpp|ldaps?):)[^\s:@/]+:[^\s@/]+@[\w.-]+(:\d+)?$"
    r"|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
)
_URL_WITH_ONE = r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://([^\s/?#]{0,2000}@|[^\s?#]{0,2000}\?[^\s#]{0,2000}=)"
_RUN = r"[A-Za-z0-9+=]{10,}"
_LONGEST = 32  # characters of a run that may be one word
_AT_RANDOM = 3.5, 3.0  # characters from one change of letters, digits and capitals to the next: with digits, without


def is_secret_name(name: str) -> bool:
    """Whether what a variable, a setting or a property holds is a secret, by its name: ``SMTP_PWD``, ``apiKey``.

    Of a name with dots the last part decides that is no number.
    """
    last = next((part for part in reversed(name.split(".")) if not part.isdigit()), "")
    words = [word.lower() for word in re.findall(_WORD, last) if not word.isdigit() and word != "v"]
    if tuple(words[-2:]) in _SECRET_PAIRS:
        return True
    while words[1:] and words[-1] in _FORMS:
        words.pop()
    counted = words == ["key"] and "." in name  # what a rate limit goes by
    if not words or words[-1] in _ASIDE or words[-2:] == ["public", "key"] or counted:
        return False
    return words[-1] in _LAST_WORDS or any(map(_is_secret_word, words))


def _is_secret_word(word: str) -> bool:
    """Whether a word of a name tells of a secret, also with another one before it: ``smtppass``."""
    passing = len(word) > len("pass") and word.endswith("pass") and word not in _NO_PASS
    return passing or word in _SECRET_WORDS or word.endswith(_ENDINGS)


def is_secret_form(text: str) -> bool:
    """Whether a value is a secret by its looks.

    That is a private key, a hash, a header or URL with credentials or a query, a known kind of token, or letters and
    digits at random.
    """
    marked = re.search(_MARKED, text, re.IGNORECASE) or re.search(_URL_WITH_ONE, text, re.IGNORECASE)
    return marked is not None or any(map(_is_random, re.findall(_RUN, text)))


def _is_random(run: str) -> bool:
    parts, has_digits = re.findall(_WORD, run), any(map(str.isdigit, run))
    most = _AT_RANDOM[0] if has_digits else _AT_RANDOM[1]
    return len(run) >= _LONGEST or (len(parts) > 3 and len(run) / len(parts) < most)  # noqa: PLR2004 (IPv4, Base64)


def looks_secret(name: str, text: str) -> bool:
    """Whether a value found under a name is one that the directory must only refer to."""
    if not text or is_switch(text) or text.lower() in _PLAIN_WORDS:
        return False
    return is_secret_name(name) or is_secret_form(text)


_QUOTED = r"\"[^\"\n]*\"?|(?<!\w)'[^'\n]*'?|`[^`\n]*`?"


def without_values(text: str, names: Container[str] = ()) -> str:
    """Return what a program or server says without what it quotes, unless that is one of the known ``names``."""
    return re.sub(_QUOTED, lambda found: found[0] if found[0].strip("\"'`") in names else '"…"', text)
