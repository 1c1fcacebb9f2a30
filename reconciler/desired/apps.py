"""Applications that need no more than their name: the variables by which each is told where to send its mail.

A row is data: what the application's own documentation says, under ``source``, of the releases that ``versions`` names.
`docs/applications.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from reconciler.desired import words
from reconciler.desired.words import Choice, Value


@dataclass(frozen=True, slots=True)
class Entry:
    """What a variable is given, and what being unset amounts to: None where the application then has nothing to go by.

    What is unset in the compose file, and may be, is left so: then only another value needs an entry there.
    """

    value: Value
    assumed: Value | None = None

    @property
    def needs_from(self) -> bool:
        """Whether it is about whom the mail is from, which a provider need not say."""
        return "from" in words.slots(self.value)


@dataclass(frozen=True, slots=True)
class App:
    """An application: ``variables`` by name, or ``why_none`` and the ``remedy`` where it takes none.

    ``images`` are its images without registry and tag, as `fnmatch` has it. ``cannot`` are options of `words.CHOICES`
    that it has no word for, with what that means. ``setup`` is what has to stand in its configuration once. ``sign``
    are variables that no other application has together, by which it is known whatever its image; none where it has
    the names of its framework.
    """

    title: str
    source: str
    versions: str
    images: tuple[str, ...]
    variables: Mapping[str, Entry] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    setup: str = ""
    why_none: str = ""
    remedy: str = ""
    sign: tuple[str, ...] = ()

    def is_image(self, image: str) -> bool:
        """Whether an image is one of its own, from whichever registry and of whichever tag."""
        path = image.partition("@")[0]
        name = path if ":" not in path.rpartition("/")[2] else path.rpartition(":")[0]
        return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}") for pattern in self.images)


def suggestion(name: str) -> str:
    """Return a hint for a name that no application here has."""
    folded = {_folded(known): known for known in APPS} | {_folded(app.title): known for known, app in APPS.items()}
    near = get_close_matches(_folded(name), folded, 1)
    if near:
        return f"did you mean {folded[near[0]]}?"
    return f"known are {', '.join(APPS)}; or write its variables under env"


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _tls(starttls: str, implicit: str, none: str) -> Choice:
    return Choice("TLS mode", ((words.STARTTLS, starttls), (words.IMPLICIT, implicit), (words.NO_TLS, none)))


def _verify(verified: str, unverified: str) -> Choice:
    return Choice("verification", (("verified", verified), ("unverified", unverified)))


def _login(login: str, anonymous: str) -> Choice:
    return Choice("login", (("login", login), ("anonymous", anonymous)))


def _switch(value: str) -> Entry:
    """Return what turns mail on. Where it is unset it is on by the application's own configuration, or by default."""
    return Entry(value, value)


_HOST, _PORT, _FROM, _ADDRESS = Entry("{host}"), "{port}", Entry("{from}"), Entry("{from|address}")
_USER, _PASSWORD = Entry("{username}", ""), Entry("{password}", "")
_IMPLICIT_ONLY = Entry(_tls("false", "true", "false"), "false")
_STARTTLS_ONLY = Entry(_tls("true", "false", "false"), "false")
_SKIP = Entry(_verify("false", "true"), "false")
_KEEPS_VERIFYING = "it has no variable for a certificate that does not verify"
_BY_PORT = "it begins with TLS on port 465, and on no other"
_MAYBE_STARTTLS = "it uses STARTTLS wherever the server offers it"


def _forge(prefix: str) -> dict[str, Entry]:
    """Return the section ``mailer`` of Gitea's ``app.ini``, as the environment names it."""
    return {
        f"{prefix}__mailer__ENABLED": _switch("true"),
        f"{prefix}__mailer__PROTOCOL": Entry(_tls("smtp+starttls", "smtps", "smtp")),
        f"{prefix}__mailer__SMTP_ADDR": _HOST,
        f"{prefix}__mailer__SMTP_PORT": Entry(_PORT),
        f"{prefix}__mailer__USER": _USER,
        f"{prefix}__mailer__PASSWD": _PASSWORD,
        f"{prefix}__mailer__FROM": _FROM,
        f"{prefix}__mailer__FORCE_TRUST_SERVER_CERT": _SKIP,
    }


APPS: dict[str, App] = {
    "appwrite": App(
        "Appwrite",
        "https://appwrite.io/docs/advanced/self-hosting/configuration/environment-variables",
        "0.7 and later",
        ("appwrite/appwrite",),
        {
            "_APP_SMTP_HOST": _HOST,
            "_APP_SMTP_PORT": Entry(_PORT),
            "_APP_SMTP_SECURE": Entry(_tls("tls", "ssl", ""), ""),
            "_APP_SMTP_USERNAME": _USER,
            "_APP_SMTP_PASSWORD": _PASSWORD,
            "_APP_SYSTEM_EMAIL_ADDRESS": _ADDRESS,
        },
        cannot={"unverified": _KEEPS_VERIFYING},
        sign=("_APP_SMTP_HOST",),
    ),
    "authelia": App(
        "Authelia",
        "https://www.authelia.com/configuration/notifications/smtp/",
        "4.38 and later, which have the address",
        ("authelia/authelia",),
        {
            "AUTHELIA_NOTIFIER_SMTP_ADDRESS": Entry(
                _tls("submission://{host}:{port}", "submissions://{host}:{port}", "smtp://{host}:{port}")
            ),
            "AUTHELIA_NOTIFIER_SMTP_USERNAME": _USER,
            "AUTHELIA_NOTIFIER_SMTP_PASSWORD": _PASSWORD,
            "AUTHELIA_NOTIFIER_SMTP_SENDER": _FROM,
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_REQUIRE_TLS": Entry(_tls("false", "false", "true"), "false"),
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_STARTTLS": Entry(_tls("false", "false", "true"), "false"),
            "AUTHELIA_NOTIFIER_SMTP_TLS_SKIP_VERIFY": _SKIP,
        },
        sign=("AUTHELIA_NOTIFIER_SMTP_ADDRESS",),
    ),
    "authentik": App(
        "authentik",
        "https://docs.goauthentik.io/install-config/email/",
        "all that are maintained; server and worker are told alike",
        ("goauthentik/server",),
        {
            "AUTHENTIK_EMAIL__HOST": _HOST,
            "AUTHENTIK_EMAIL__PORT": Entry(_PORT, "25"),
            "AUTHENTIK_EMAIL__USERNAME": _USER,
            "AUTHENTIK_EMAIL__PASSWORD": _PASSWORD,
            "AUTHENTIK_EMAIL__USE_TLS": _STARTTLS_ONLY,
            "AUTHENTIK_EMAIL__USE_SSL": _IMPLICIT_ONLY,
            "AUTHENTIK_EMAIL__FROM": _FROM,
        },
        cannot={"unverified": "it trusts what SSL_CERT_FILE names besides, and verifies always"},
        sign=("AUTHENTIK_EMAIL__HOST",),
    ),
    "bookstack": App(
        "BookStack",
        "https://www.bookstackapp.com/docs/admin/email-webhooks/",
        "22.11 and later, which have MAIL_VERIFY_SSL",
        ("linuxserver/bookstack", "solidnerd/bookstack"),
        {
            "MAIL_DRIVER": _switch("smtp"),
            "MAIL_HOST": _HOST,
            "MAIL_PORT": Entry(_PORT, "587"),
            "MAIL_ENCRYPTION": Entry(_tls("tls", "ssl", "null"), "null"),
            "MAIL_USERNAME": _USER,
            "MAIL_PASSWORD": _PASSWORD,
            "MAIL_FROM": _ADDRESS,
            "MAIL_VERIFY_SSL": Entry(_verify("true", "false"), "true"),
        },
        cannot={"none": _MAYBE_STARTTLS},
    ),
    "cal.com": App(
        "Cal.com",
        "https://cal.com/docs/self-hosting/installation (.env.example)",
        "all that are maintained",
        ("calcom/cal.com", "calcom/cal.com-arm"),
        {
            "EMAIL_SERVER_HOST": _HOST,
            "EMAIL_SERVER_PORT": Entry(_PORT),
            "EMAIL_SERVER_USER": _USER,
            "EMAIL_SERVER_PASSWORD": _PASSWORD,
            "EMAIL_FROM": _ADDRESS,
        },
        cannot={"implicit": _BY_PORT, "none": _MAYBE_STARTTLS, "unverified": _KEEPS_VERIFYING},
        sign=(
            "EMAIL_SERVER_HOST",
            "EMAIL_SERVER_PORT",
        ),
    ),
    "directus": App(
        "Directus",
        "https://directus.io/docs/configuration/email",
        "10 and later",
        ("directus/directus",),
        {
            "EMAIL_TRANSPORT": _switch("smtp"),
            "EMAIL_FROM": _FROM,
            "EMAIL_SMTP_HOST": _HOST,
            "EMAIL_SMTP_PORT": Entry(_PORT),
            "EMAIL_SMTP_USER": _USER,
            "EMAIL_SMTP_PASSWORD": _PASSWORD,
            "EMAIL_SMTP_SECURE": _IMPLICIT_ONLY,
            "EMAIL_SMTP_IGNORE_TLS": Entry(_tls("false", "false", "true"), "false"),
            "EMAIL_SMTP_TLS_REJECT_UNAUTHORIZED": Entry(_verify("true", "false"), "true"),
        },
        sign=("EMAIL_SMTP_HOST",),
    ),
    "discourse": App(
        "Discourse",
        "https://github.com/discourse/discourse/blob/main/config/discourse_defaults.conf",
        "all that are maintained; DISCOURSE_SMTP_FORCE_TLS from 2.9",
        ("discourse/discourse", "bitnami/discourse", "bitnamilegacy/discourse"),
        {
            "DISCOURSE_SMTP_ADDRESS": _HOST,
            "DISCOURSE_SMTP_PORT": Entry(_PORT, "25"),
            "DISCOURSE_SMTP_USER_NAME": _USER,
            "DISCOURSE_SMTP_PASSWORD": _PASSWORD,
            "DISCOURSE_SMTP_ENABLE_START_TLS": Entry(_tls("true", "false", "false"), _tls("true", "false", "true")),
            "DISCOURSE_SMTP_FORCE_TLS": _IMPLICIT_ONLY,
            "DISCOURSE_SMTP_OPENSSL_VERIFY_MODE": Entry(_verify("peer", "none"), "peer"),
            "DISCOURSE_NOTIFICATION_EMAIL": _ADDRESS,
        },
        sign=("DISCOURSE_SMTP_ADDRESS",),
    ),
    "forgejo": App(
        "Forgejo",
        "https://forgejo.org/docs/latest/admin/config-cheat-sheet/#mailer-mailer",
        "1.18 and later",
        ("forgejo/forgejo",),
        _forge("FORGEJO"),
        sign=("FORGEJO__mailer__SMTP_ADDR",),
    ),
    "ghost": App(
        "Ghost",
        "https://docs.ghost.org/config#mail",
        "5 and later",
        ("ghost", "library/ghost", "tryghost/ghost"),
        {
            "mail__transport": _switch("SMTP"),
            "mail__from": _FROM,
            "mail__options__host": _HOST,
            "mail__options__port": Entry(_PORT),
            "mail__options__secure": _IMPLICIT_ONLY,
            "mail__options__requireTLS": Entry(_tls("true", "false", "false"), _tls("true", "false", "false")),
            "mail__options__ignoreTLS": Entry(_tls("false", "false", "true"), "false"),
            "mail__options__auth__user": _USER,
            "mail__options__auth__pass": _PASSWORD,
            "mail__options__tls__rejectUnauthorized": Entry(_verify("true", "false"), "true"),
        },
        sign=("mail__options__host",),
    ),
    "gitea": App(
        "Gitea",
        "https://docs.gitea.com/administration/config-cheat-sheet#mailer-mailer",
        "1.18 and later, which have PROTOCOL and SMTP_ADDR",
        ("gitea/gitea",),
        _forge("GITEA"),
        sign=("GITEA__mailer__SMTP_ADDR",),
    ),
    "gitlab": App(
        "GitLab",
        "https://docs.gitlab.com/omnibus/settings/smtp/",
        "all that are maintained (the Linux package's image)",
        ("gitlab/gitlab-ce", "gitlab/gitlab-ee"),
        {
            "GITLAB_SMTP_ADDRESS": _HOST,
            "GITLAB_SMTP_PORT": Entry(_PORT),
            "GITLAB_SMTP_USER_NAME": _USER,
            "GITLAB_SMTP_PASSWORD": _PASSWORD,
            "GITLAB_SMTP_AUTHENTICATION": Entry(_login("login", "none")),
            "GITLAB_SMTP_ENABLE_STARTTLS_AUTO": Entry(_tls("true", "false", "false")),
            "GITLAB_SMTP_TLS": Entry(_tls("false", "true", "false")),
            "GITLAB_SMTP_OPENSSL_VERIFY_MODE": Entry(_verify("peer", "none")),
            "GITLAB_EMAIL_FROM": _ADDRESS,
        },
        setup="""\
GITLAB_OMNIBUS_CONFIG, or gitlab.rb, is Ruby and reads them itself. There stands once:

```ruby
gitlab_rails['smtp_enable'] = true
gitlab_rails['smtp_address'] = ENV['GITLAB_SMTP_ADDRESS']
gitlab_rails['smtp_port'] = ENV['GITLAB_SMTP_PORT'].to_i
gitlab_rails['smtp_enable_starttls_auto'] = ENV['GITLAB_SMTP_ENABLE_STARTTLS_AUTO'] == 'true'
gitlab_rails['smtp_tls'] = ENV['GITLAB_SMTP_TLS'] == 'true'
gitlab_rails['smtp_openssl_verify_mode'] = ENV['GITLAB_SMTP_OPENSSL_VERIFY_MODE']
gitlab_rails['gitlab_email_from'] = ENV['GITLAB_EMAIL_FROM']
if ENV['GITLAB_SMTP_AUTHENTICATION'] != 'none'
  gitlab_rails['smtp_authentication'] = ENV['GITLAB_SMTP_AUTHENTICATION']
  gitlab_rails['smtp_user_name'] = ENV['GITLAB_SMTP_USER_NAME']
  gitlab_rails['smtp_password'] = ENV['GITLAB_SMTP_PASSWORD']
end
```""",
        sign=("GITLAB_SMTP_ADDRESS",),
    ),
    "grafana": App(
        "Grafana",
        "https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/#smtp",
        "8 and later",
        ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise"),
        {
            "GF_SMTP_ENABLED": _switch("true"),
            "GF_SMTP_HOST": Entry("{host}:{port}"),
            "GF_SMTP_USER": _USER,
            "GF_SMTP_PASSWORD": _PASSWORD,
            "GF_SMTP_FROM_ADDRESS": _ADDRESS,
            "GF_SMTP_SKIP_VERIFY": _SKIP,
            "GF_SMTP_STARTTLS_POLICY": Entry(
                _tls("MandatoryStartTLS", "NoStartTLS", "NoStartTLS"), _tls("MandatoryStartTLS", "NoStartTLS", "")
            ),
        },
        cannot={"implicit": _BY_PORT},
        sign=(
            "GF_SMTP_HOST",
            "GF_SMTP_ENABLED",
        ),
    ),
    "healthchecks": App(
        "Healthchecks",
        "https://healthchecks.io/docs/self_hosted_configuration/",
        "all that are maintained",
        ("healthchecks/healthchecks",),
        {
            "EMAIL_HOST": _HOST,
            "EMAIL_PORT": Entry(_PORT, "587"),
            "EMAIL_HOST_USER": _USER,
            "EMAIL_HOST_PASSWORD": _PASSWORD,
            "EMAIL_USE_TLS": Entry(_tls("True", "False", "False"), "True"),
            "EMAIL_USE_SSL": Entry(_tls("False", "True", "False"), "False"),
            "DEFAULT_FROM_EMAIL": _FROM,
        },
        cannot={"unverified": _KEEPS_VERIFYING},
    ),
    "keycloak": App(
        "Keycloak",
        "https://www.keycloak.org/docs/latest/server_admin/#_email",
        "all",
        ("keycloak/keycloak", "bitnami/keycloak", "bitnamilegacy/keycloak"),
        why_none="each realm has its own, in Keycloak's database; a realm's file that names variables is read only "
        "while the realm does not exist yet",
        remedy="set it in the realm, under Realm settings, Email, or by `kcadm.sh update realms/REALM -s "
        "smtpServer.host=HOST`, and leave it out here",
    ),
    "listmonk": App(
        "listmonk",
        "https://listmonk.app/docs/configuration/",
        "1.0 and later",
        ("listmonk/listmonk",),
        why_none="its variables are for its own address and its database alone; mail servers are in the database",
        remedy="set it under Settings, SMTP, and leave it out here",
    ),
    "mastodon": App(
        "Mastodon",
        "https://docs.joinmastodon.org/admin/config/#email",
        "4.0 and later, which have SMTP_ENABLE_STARTTLS",
        ("mastodon/mastodon", "tootsuite/mastodon", "linuxserver/mastodon"),
        {
            "SMTP_SERVER": _HOST,
            "SMTP_PORT": Entry(_PORT, "25"),
            "SMTP_LOGIN": _USER,
            "SMTP_PASSWORD": _PASSWORD,
            "SMTP_AUTH_METHOD": Entry(_login("plain", "none"), "plain"),
            "SMTP_ENABLE_STARTTLS": Entry(_tls("always", "never", "never"), _tls("always", "never", "auto")),
            "SMTP_TLS": _IMPLICIT_ONLY,
            "SMTP_OPENSSL_VERIFY_MODE": Entry(_verify("peer", "none"), "peer"),
            "SMTP_FROM_ADDRESS": _FROM,
        },
        sign=(
            "SMTP_SERVER",
            "SMTP_FROM_ADDRESS",
        ),
    ),
    "mattermost": App(
        "Mattermost",
        "https://docs.mattermost.com/administration-guide/configure/environment-configuration-settings.html#smtp",
        "5 and later",
        ("mattermost/mattermost-team-edition", "mattermost/mattermost-enterprise-edition"),
        {
            "MM_EMAILSETTINGS_SMTPSERVER": _HOST,
            "MM_EMAILSETTINGS_SMTPPORT": Entry(_PORT),
            "MM_EMAILSETTINGS_ENABLESMTPAUTH": Entry(_login("true", "false"), "false"),
            "MM_EMAILSETTINGS_SMTPUSERNAME": _USER,
            "MM_EMAILSETTINGS_SMTPPASSWORD": _PASSWORD,
            "MM_EMAILSETTINGS_CONNECTIONSECURITY": Entry(_tls("STARTTLS", "TLS", ""), ""),
            "MM_EMAILSETTINGS_SKIPSERVERCERTIFICATEVERIFICATION": _SKIP,
            "MM_EMAILSETTINGS_FEEDBACKEMAIL": _ADDRESS,
        },
        sign=("MM_EMAILSETTINGS_SMTPSERVER",),
    ),
    "n8n": App(
        "n8n",
        "https://docs.n8n.io/hosting/configuration/environment-variables/user-management-smtp-2fa/",
        "1 and later",
        ("n8nio/n8n", "n8n-io/n8n"),
        {
            "N8N_EMAIL_MODE": _switch("smtp"),
            "N8N_SMTP_HOST": _HOST,
            "N8N_SMTP_PORT": Entry(_PORT, "465"),
            "N8N_SMTP_USER": _USER,
            "N8N_SMTP_PASS": _PASSWORD,
            "N8N_SMTP_SENDER": _FROM,
            "N8N_SMTP_SSL": Entry(_tls("false", "true", "false"), "true"),
            "N8N_SMTP_STARTTLS": Entry(_tls("true", "false", "false"), _tls("true", "false", "true")),
        },
        cannot={"unverified": _KEEPS_VERIFYING},
        sign=("N8N_SMTP_HOST",),
    ),
    "nextcloud": App(
        "Nextcloud",
        "https://github.com/nextcloud/docker#auto-configuration-via-environment-variables",
        "all that are maintained (the image of the Nextcloud community)",
        ("nextcloud", "library/nextcloud"),
        {
            "SMTP_HOST": _HOST,
            "SMTP_SECURE": Entry(_tls("tls", "ssl", ""), ""),
            "SMTP_PORT": Entry(_PORT, _tls("465", "465", "25")),
            "SMTP_NAME": _USER,
            "SMTP_PASSWORD": _PASSWORD,
            "MAIL_FROM_ADDRESS": Entry("{from|local}"),
            "MAIL_DOMAIN": Entry("{from|domain}"),
        },
        cannot={"unverified": "only its config.php can say so, by mail_smtpstreamoptions"},
        sign=(
            "SMTP_HOST",
            "MAIL_FROM_ADDRESS",
            "MAIL_DOMAIN",
        ),
    ),
    "openproject": App(
        "OpenProject",
        "https://www.openproject.org/docs/installation-and-operations/configuration/outbound-emails/",
        "12 and later",
        ("openproject/openproject", "openproject/community"),
        {
            "OPENPROJECT_EMAIL__DELIVERY__METHOD": _switch("smtp"),
            "OPENPROJECT_SMTP__ADDRESS": _HOST,
            "OPENPROJECT_SMTP__PORT": Entry(_PORT),
            "OPENPROJECT_SMTP__USER__NAME": _USER,
            "OPENPROJECT_SMTP__PASSWORD": _PASSWORD,
            "OPENPROJECT_SMTP__ENABLE__STARTTLS__AUTO": Entry(
                _tls("true", "false", "false"), _tls("true", "false", "true")
            ),
            "OPENPROJECT_SMTP__SSL": _IMPLICIT_ONLY,
            "OPENPROJECT_SMTP__OPENSSL__VERIFY__MODE": Entry(_verify("peer", "none"), "peer"),
            "OPENPROJECT_MAIL__FROM": _FROM,
        },
        sign=("OPENPROJECT_SMTP__ADDRESS",),
    ),
    "outline": App(
        "Outline",
        "https://docs.getoutline.com/s/hosting/doc/smtp-cqCJyZGMIB",
        "1.1 and later, which have SMTP_DISABLE_STARTTLS",
        ("outlinewiki/outline",),
        {
            "SMTP_HOST": _HOST,
            "SMTP_PORT": Entry(_PORT),
            "SMTP_USERNAME": _USER,
            "SMTP_PASSWORD": _PASSWORD,
            "SMTP_FROM_EMAIL": _FROM,
            "SMTP_SECURE": Entry(_tls("false", "true", "false"), "true"),
            "SMTP_DISABLE_STARTTLS": Entry(_tls("false", "false", "true"), "false"),
        },
        cannot={"unverified": "it verifies with implicit TLS, and never with STARTTLS"},
        sign=(
            "SMTP_HOST",
            "SMTP_FROM_EMAIL",
        ),
    ),
    "paperless-ngx": App(
        "Paperless-ngx",
        "https://docs.paperless-ngx.com/configuration/#email-sending",
        "1.9.3 and later",
        ("paperless-ngx/paperless-ngx", "paperlessngx/paperless-ngx"),
        {
            "PAPERLESS_EMAIL_HOST": _HOST,
            "PAPERLESS_EMAIL_PORT": Entry(_PORT, "25"),
            "PAPERLESS_EMAIL_HOST_USER": _USER,
            "PAPERLESS_EMAIL_HOST_PASSWORD": _PASSWORD,
            "PAPERLESS_EMAIL_FROM": _FROM,
            "PAPERLESS_EMAIL_USE_TLS": _STARTTLS_ONLY,
            "PAPERLESS_EMAIL_USE_SSL": _IMPLICIT_ONLY,
        },
        cannot={"unverified": _KEEPS_VERIFYING},
        sign=("PAPERLESS_EMAIL_HOST",),
    ),
    "plausible": App(
        "Plausible",
        "https://github.com/plausible/community-edition/wiki/configuration#email",
        "all; MAILER_ADAPTER stays what it is, and names SMTP by default",
        ("plausible/community-edition", "plausible/analytics"),
        {
            "MAILER_EMAIL": _ADDRESS,
            "SMTP_HOST_ADDR": _HOST,
            "SMTP_HOST_PORT": Entry(_PORT, "25"),
            "SMTP_USER_NAME": _USER,
            "SMTP_USER_PWD": _PASSWORD,
            "SMTP_HOST_SSL_ENABLED": _IMPLICIT_ONLY,
        },
        cannot={"none": _MAYBE_STARTTLS, "unverified": _KEEPS_VERIFYING},
        sign=("SMTP_HOST_ADDR",),
    ),
    "rocket.chat": App(
        "Rocket.Chat",
        "https://docs.rocket.chat/docs/manage-settings-using-environmental-variables",
        "all that are maintained: OVERWRITE_SETTING_ and the id of each setting of Email, SMTP",
        ("rocketchat/rocket.chat", "rocket.chat", "library/rocket.chat"),
        {
            "OVERWRITE_SETTING_SMTP_Protocol": Entry(_tls("smtp", "smtps", "smtp"), "smtp"),
            "OVERWRITE_SETTING_SMTP_Host": _HOST,
            "OVERWRITE_SETTING_SMTP_Port": Entry(_PORT),
            "OVERWRITE_SETTING_SMTP_IgnoreTLS": Entry(_tls("false", "true", "true"), "true"),
            "OVERWRITE_SETTING_SMTP_Username": _USER,
            "OVERWRITE_SETTING_SMTP_Password": _PASSWORD,
            "OVERWRITE_SETTING_From_Email": _ADDRESS,
        },
        cannot={"unverified": _KEEPS_VERIFYING},
        sign=("OVERWRITE_SETTING_SMTP_Host",),
    ),
    "vaultwarden": App(
        "Vaultwarden",
        "https://github.com/dani-garcia/vaultwarden/blob/main/.env.template",
        "1.25 and later, which have SMTP_SECURITY",
        ("vaultwarden/server", "dani-garcia/vaultwarden"),
        {
            "SMTP_HOST": _HOST,
            "SMTP_PORT": Entry(_PORT, _tls("587", "465", "25")),
            "SMTP_SECURITY": Entry(_tls("starttls", "force_tls", "off"), "starttls"),
            "SMTP_USERNAME": _USER,
            "SMTP_PASSWORD": _PASSWORD,
            "SMTP_FROM": _ADDRESS,
            "SMTP_ACCEPT_INVALID_CERTS": _SKIP,
            "SMTP_ACCEPT_INVALID_HOSTNAMES": _SKIP,
        },
        cannot={"anonymous": "an empty SMTP_USERNAME is a name to it: the variable must not be set at all"},
        sign=(
            "SMTP_HOST",
            "SMTP_SECURITY",
        ),
    ),
    "vikunja": App(
        "Vikunja",
        "https://vikunja.io/docs/config-options/#mailer",
        "all that are maintained",
        ("vikunja/vikunja", "vikunja/api"),
        {
            "VIKUNJA_MAILER_ENABLED": _switch("true"),
            "VIKUNJA_MAILER_HOST": _HOST,
            "VIKUNJA_MAILER_PORT": Entry(_PORT, "587"),
            "VIKUNJA_MAILER_USERNAME": _USER,
            "VIKUNJA_MAILER_PASSWORD": _PASSWORD,
            "VIKUNJA_MAILER_FROMEMAIL": _ADDRESS,
            "VIKUNJA_MAILER_FORCESSL": _IMPLICIT_ONLY,
            "VIKUNJA_MAILER_SKIPTLSVERIFY": _SKIP,
        },
        cannot={"none": _MAYBE_STARTTLS},
        sign=("VIKUNJA_MAILER_HOST",),
    ),
    "zitadel": App(
        "Zitadel",
        "https://zitadel.com/docs/self-hosting/manage/configure",
        "2 and later",
        ("zitadel/zitadel",),
        why_none="ZITADEL_DEFAULTINSTANCE_SMTPCONFIGURATION_* are read only while its first instance is set up, and "
        "from then on its database counts",
        remedy="set it in the console, under Default settings, SMTP provider, or by its API, and leave it out here",
    ),
}
