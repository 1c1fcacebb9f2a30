"""What the documentation of each application has it told, with a provider of each shape: written out by hand."""

from __future__ import annotations

WORD = "p@ss wo:rd"
NAMED, BARE = "Mana <no-reply@mana.how>", "no-reply@mana.how"
_LOGIN = "username: me, password: {env: WORD}, from: Mana <no-reply@mana.how>"
PROVIDERS = {
    "starttls": f"{{host: mail.example.org, port: 587, {_LOGIN}}}",
    "implicit": f"{{host: mail.example.org, port: 465, {_LOGIN}}}",
    "relay": "{host: mailpit, port: 1025, tls: none, from: Mana <no-reply@mana.how>}",
    "unverified": f"{{host: mail.example.org, port: 587, verify_tls: false, {_LOGIN}}}",
}
TRUE, FALSE = "true", "false"

# host, port, user name and password; what is said of the sender; then what goes by the provider's shape.
ROWS: dict[
    str, tuple[tuple[str, ...], dict[str, str], dict[str, str], dict[str, str], dict[str, str], dict[str, str]]
] = {
    "appwrite": (
        ("_APP_SMTP_HOST", "_APP_SMTP_PORT", "_APP_SMTP_USERNAME", "_APP_SMTP_PASSWORD"),
        {"_APP_SYSTEM_EMAIL_ADDRESS": BARE},
        {"_APP_SMTP_SECURE": "tls"},
        {"_APP_SMTP_SECURE": "ssl"},
        {"_APP_SMTP_SECURE": ""},
        {},
    ),
    "authelia": (
        ("", "", "AUTHELIA_NOTIFIER_SMTP_USERNAME", "AUTHELIA_NOTIFIER_SMTP_PASSWORD"),
        {"AUTHELIA_NOTIFIER_SMTP_SENDER": NAMED},
        {
            "AUTHELIA_NOTIFIER_SMTP_ADDRESS": "submission://mail.example.org:587",
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_REQUIRE_TLS": FALSE,
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_STARTTLS": FALSE,
            "AUTHELIA_NOTIFIER_SMTP_TLS_SKIP_VERIFY": FALSE,
        },
        {"AUTHELIA_NOTIFIER_SMTP_ADDRESS": "submissions://mail.example.org:465"},
        {
            "AUTHELIA_NOTIFIER_SMTP_ADDRESS": "smtp://mailpit:1025",
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_REQUIRE_TLS": TRUE,
            "AUTHELIA_NOTIFIER_SMTP_DISABLE_STARTTLS": TRUE,
        },
        {"AUTHELIA_NOTIFIER_SMTP_TLS_SKIP_VERIFY": TRUE},
    ),
    "authentik": (
        tuple(f"AUTHENTIK_EMAIL__{it}" for it in ("HOST", "PORT", "USERNAME", "PASSWORD")),
        {"AUTHENTIK_EMAIL__FROM": NAMED},
        {"AUTHENTIK_EMAIL__USE_TLS": TRUE, "AUTHENTIK_EMAIL__USE_SSL": FALSE},
        {"AUTHENTIK_EMAIL__USE_TLS": FALSE, "AUTHENTIK_EMAIL__USE_SSL": TRUE},
        {"AUTHENTIK_EMAIL__USE_TLS": FALSE},
        {},
    ),
    "bookstack": (
        ("MAIL_HOST", "MAIL_PORT", "MAIL_USERNAME", "MAIL_PASSWORD"),
        {"MAIL_FROM": BARE},
        {"MAIL_DRIVER": "smtp", "MAIL_ENCRYPTION": "tls", "MAIL_VERIFY_SSL": TRUE},
        {"MAIL_ENCRYPTION": "ssl"},
        {"MAIL_ENCRYPTION": "null"},
        {"MAIL_VERIFY_SSL": FALSE},
    ),
    "cal.com": (
        ("EMAIL_SERVER_HOST", "EMAIL_SERVER_PORT", "EMAIL_SERVER_USER", "EMAIL_SERVER_PASSWORD"),
        {"EMAIL_FROM": BARE},
        {},
        {},
        {},
        {},
    ),
    "directus": (
        tuple(f"EMAIL_SMTP_{it}" for it in ("HOST", "PORT", "USER", "PASSWORD")),
        {"EMAIL_FROM": NAMED},
        {
            "EMAIL_TRANSPORT": "smtp",
            "EMAIL_SMTP_SECURE": FALSE,
            "EMAIL_SMTP_IGNORE_TLS": FALSE,
            "EMAIL_SMTP_TLS_REJECT_UNAUTHORIZED": TRUE,
        },
        {"EMAIL_SMTP_SECURE": TRUE},
        {"EMAIL_SMTP_IGNORE_TLS": TRUE},
        {"EMAIL_SMTP_TLS_REJECT_UNAUTHORIZED": FALSE},
    ),
    "discourse": (
        tuple(f"DISCOURSE_SMTP_{it}" for it in ("ADDRESS", "PORT", "USER_NAME", "PASSWORD")),
        {"DISCOURSE_NOTIFICATION_EMAIL": BARE},
        {
            "DISCOURSE_SMTP_ENABLE_START_TLS": TRUE,
            "DISCOURSE_SMTP_FORCE_TLS": FALSE,
            "DISCOURSE_SMTP_OPENSSL_VERIFY_MODE": "peer",
        },
        {"DISCOURSE_SMTP_ENABLE_START_TLS": FALSE, "DISCOURSE_SMTP_FORCE_TLS": TRUE},
        {"DISCOURSE_SMTP_ENABLE_START_TLS": FALSE},
        {"DISCOURSE_SMTP_OPENSSL_VERIFY_MODE": "none"},
    ),
    **{
        app: (
            tuple(f"{prefix}__mailer__{it}" for it in ("SMTP_ADDR", "SMTP_PORT", "USER", "PASSWD")),
            {f"{prefix}__mailer__FROM": NAMED},
            {
                f"{prefix}__mailer__ENABLED": TRUE,
                f"{prefix}__mailer__PROTOCOL": "smtp+starttls",
                f"{prefix}__mailer__FORCE_TRUST_SERVER_CERT": FALSE,
            },
            {f"{prefix}__mailer__PROTOCOL": "smtps"},
            {f"{prefix}__mailer__PROTOCOL": "smtp"},
            {f"{prefix}__mailer__FORCE_TRUST_SERVER_CERT": TRUE},
        )
        for app, prefix in (("forgejo", "FORGEJO"), ("gitea", "GITEA"))
    },
    "ghost": (
        tuple(f"mail__options__{it}" for it in ("host", "port", "auth__user", "auth__pass")),
        {"mail__from": NAMED},
        {
            "mail__transport": "SMTP",
            "mail__options__secure": FALSE,
            "mail__options__requireTLS": TRUE,
            "mail__options__ignoreTLS": FALSE,
            "mail__options__tls__rejectUnauthorized": TRUE,
        },
        {"mail__options__secure": TRUE, "mail__options__requireTLS": FALSE},
        {"mail__options__requireTLS": FALSE, "mail__options__ignoreTLS": TRUE},
        {"mail__options__tls__rejectUnauthorized": FALSE},
    ),
    "gitlab": (
        tuple(f"GITLAB_SMTP_{it}" for it in ("ADDRESS", "PORT", "USER_NAME", "PASSWORD")),
        {"GITLAB_EMAIL_FROM": BARE},
        {
            "GITLAB_SMTP_AUTHENTICATION": "login",
            "GITLAB_SMTP_ENABLE_STARTTLS_AUTO": TRUE,
            "GITLAB_SMTP_TLS": FALSE,
            "GITLAB_SMTP_OPENSSL_VERIFY_MODE": "peer",
        },
        {"GITLAB_SMTP_ENABLE_STARTTLS_AUTO": FALSE, "GITLAB_SMTP_TLS": TRUE},
        {"GITLAB_SMTP_AUTHENTICATION": "none", "GITLAB_SMTP_ENABLE_STARTTLS_AUTO": FALSE},
        {"GITLAB_SMTP_OPENSSL_VERIFY_MODE": "none"},
    ),
    "grafana": (
        ("", "", "GF_SMTP_USER", "GF_SMTP_PASSWORD"),
        {"GF_SMTP_FROM_ADDRESS": BARE},
        {
            "GF_SMTP_ENABLED": TRUE,
            "GF_SMTP_HOST": "mail.example.org:587",
            "GF_SMTP_SKIP_VERIFY": FALSE,
            "GF_SMTP_STARTTLS_POLICY": "MandatoryStartTLS",
        },
        {"GF_SMTP_HOST": "mail.example.org:465", "GF_SMTP_STARTTLS_POLICY": "NoStartTLS"},
        {"GF_SMTP_HOST": "mailpit:1025", "GF_SMTP_STARTTLS_POLICY": "NoStartTLS"},
        {"GF_SMTP_SKIP_VERIFY": TRUE},
    ),
    "healthchecks": (
        ("EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD"),
        {"DEFAULT_FROM_EMAIL": NAMED},
        {"EMAIL_USE_TLS": "True", "EMAIL_USE_SSL": "False"},
        {"EMAIL_USE_TLS": "False", "EMAIL_USE_SSL": "True"},
        {"EMAIL_USE_TLS": "False"},
        {},
    ),
    "mastodon": (
        ("SMTP_SERVER", "SMTP_PORT", "SMTP_LOGIN", "SMTP_PASSWORD"),
        {"SMTP_FROM_ADDRESS": NAMED},
        {
            "SMTP_AUTH_METHOD": "plain",
            "SMTP_ENABLE_STARTTLS": "always",
            "SMTP_TLS": FALSE,
            "SMTP_OPENSSL_VERIFY_MODE": "peer",
        },
        {"SMTP_ENABLE_STARTTLS": "never", "SMTP_TLS": TRUE},
        {"SMTP_AUTH_METHOD": "none", "SMTP_ENABLE_STARTTLS": "never"},
        {"SMTP_OPENSSL_VERIFY_MODE": "none"},
    ),
    "mattermost": (
        tuple(f"MM_EMAILSETTINGS_SMTP{it}" for it in ("SERVER", "PORT", "USERNAME", "PASSWORD")),
        {"MM_EMAILSETTINGS_FEEDBACKEMAIL": BARE},
        {
            "MM_EMAILSETTINGS_ENABLESMTPAUTH": TRUE,
            "MM_EMAILSETTINGS_CONNECTIONSECURITY": "STARTTLS",
            "MM_EMAILSETTINGS_SKIPSERVERCERTIFICATEVERIFICATION": FALSE,
        },
        {"MM_EMAILSETTINGS_CONNECTIONSECURITY": "TLS"},
        {"MM_EMAILSETTINGS_ENABLESMTPAUTH": FALSE, "MM_EMAILSETTINGS_CONNECTIONSECURITY": ""},
        {"MM_EMAILSETTINGS_SKIPSERVERCERTIFICATEVERIFICATION": TRUE},
    ),
    "n8n": (
        ("N8N_SMTP_HOST", "N8N_SMTP_PORT", "N8N_SMTP_USER", "N8N_SMTP_PASS"),
        {"N8N_SMTP_SENDER": NAMED},
        {"N8N_EMAIL_MODE": "smtp", "N8N_SMTP_SSL": FALSE, "N8N_SMTP_STARTTLS": TRUE},
        {"N8N_SMTP_SSL": TRUE, "N8N_SMTP_STARTTLS": FALSE},
        {"N8N_SMTP_STARTTLS": FALSE},
        {},
    ),
    "nextcloud": (
        ("SMTP_HOST", "SMTP_PORT", "SMTP_NAME", "SMTP_PASSWORD"),
        {"MAIL_FROM_ADDRESS": "no-reply", "MAIL_DOMAIN": "mana.how"},
        {"SMTP_SECURE": "tls"},
        {"SMTP_SECURE": "ssl"},
        {"SMTP_SECURE": ""},
        {},
    ),
    "openproject": (
        tuple(f"OPENPROJECT_SMTP__{it}" for it in ("ADDRESS", "PORT", "USER__NAME", "PASSWORD")),
        {"OPENPROJECT_MAIL__FROM": NAMED},
        {
            "OPENPROJECT_EMAIL__DELIVERY__METHOD": "smtp",
            "OPENPROJECT_SMTP__ENABLE__STARTTLS__AUTO": TRUE,
            "OPENPROJECT_SMTP__SSL": FALSE,
            "OPENPROJECT_SMTP__OPENSSL__VERIFY__MODE": "peer",
        },
        {"OPENPROJECT_SMTP__ENABLE__STARTTLS__AUTO": FALSE, "OPENPROJECT_SMTP__SSL": TRUE},
        {"OPENPROJECT_SMTP__ENABLE__STARTTLS__AUTO": FALSE},
        {"OPENPROJECT_SMTP__OPENSSL__VERIFY__MODE": "none"},
    ),
    "outline": (
        ("SMTP_HOST", "SMTP_PORT", "SMTP_USERNAME", "SMTP_PASSWORD"),
        {"SMTP_FROM_EMAIL": NAMED},
        {"SMTP_SECURE": FALSE, "SMTP_DISABLE_STARTTLS": FALSE},
        {"SMTP_SECURE": TRUE},
        {"SMTP_DISABLE_STARTTLS": TRUE},
        {},
    ),
    "paperless-ngx": (
        tuple(f"PAPERLESS_EMAIL_{it}" for it in ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD")),
        {"PAPERLESS_EMAIL_FROM": NAMED},
        {"PAPERLESS_EMAIL_USE_TLS": TRUE, "PAPERLESS_EMAIL_USE_SSL": FALSE},
        {"PAPERLESS_EMAIL_USE_TLS": FALSE, "PAPERLESS_EMAIL_USE_SSL": TRUE},
        {"PAPERLESS_EMAIL_USE_TLS": FALSE},
        {},
    ),
    "plausible": (
        ("SMTP_HOST_ADDR", "SMTP_HOST_PORT", "SMTP_USER_NAME", "SMTP_USER_PWD"),
        {"MAILER_EMAIL": BARE},
        {"SMTP_HOST_SSL_ENABLED": FALSE},
        {"SMTP_HOST_SSL_ENABLED": TRUE},
        {},
        {},
    ),
    "rocket.chat": (
        tuple(f"OVERWRITE_SETTING_SMTP_{it}" for it in ("Host", "Port", "Username", "Password")),
        {"OVERWRITE_SETTING_From_Email": BARE},
        {"OVERWRITE_SETTING_SMTP_Protocol": "smtp", "OVERWRITE_SETTING_SMTP_IgnoreTLS": FALSE},
        {"OVERWRITE_SETTING_SMTP_Protocol": "smtps", "OVERWRITE_SETTING_SMTP_IgnoreTLS": TRUE},
        {"OVERWRITE_SETTING_SMTP_IgnoreTLS": TRUE},
        {},
    ),
    "vaultwarden": (
        ("SMTP_HOST", "SMTP_PORT", "SMTP_USERNAME", "SMTP_PASSWORD"),
        {"SMTP_FROM": BARE},
        {
            "SMTP_SECURITY": "starttls",
            "SMTP_ACCEPT_INVALID_CERTS": FALSE,
            "SMTP_ACCEPT_INVALID_HOSTNAMES": FALSE,
        },
        {"SMTP_SECURITY": "force_tls"},
        {"SMTP_SECURITY": "off"},
        {"SMTP_ACCEPT_INVALID_CERTS": TRUE, "SMTP_ACCEPT_INVALID_HOSTNAMES": TRUE},
    ),
    "vikunja": (
        tuple(f"VIKUNJA_MAILER_{it}" for it in ("HOST", "PORT", "USERNAME", "PASSWORD")),
        {"VIKUNJA_MAILER_FROMEMAIL": BARE},
        {"VIKUNJA_MAILER_ENABLED": TRUE, "VIKUNJA_MAILER_FORCESSL": FALSE, "VIKUNJA_MAILER_SKIPTLSVERIFY": FALSE},
        {"VIKUNJA_MAILER_FORCESSL": TRUE},
        {},
        {"VIKUNJA_MAILER_SKIPTLSVERIFY": TRUE},
    ),
}


def documented(app: str, shape: str) -> dict[str, str]:
    """What an application's documentation has it told with a provider of a shape."""
    names, sender, starttls, implicit, relay, unverified = ROWS[app]
    login = {
        "starttls": ("mail.example.org", "587", "me", WORD),
        "implicit": ("mail.example.org", "465", "me", WORD),
        "relay": ("mailpit", "1025", "", ""),
        "unverified": ("mail.example.org", "587", "me", WORD),
    }[shape]
    other = {"starttls": {}, "implicit": implicit, "relay": relay, "unverified": unverified}[shape]
    found = {name: value for name, value in zip(names, login, strict=True) if name}
    return found | sender | starttls | other
