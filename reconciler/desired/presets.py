"""Providers that need no more than their name: where they take submission, as their documentation says."""

from __future__ import annotations

PRESETS: dict[str, tuple[str, int]] = {
    "brevo": ("smtp-relay.brevo.com", 587),
    "mailgun": ("smtp.mailgun.org", 587),
    "mailgun-eu": ("smtp.eu.mailgun.org", 587),
    "postmark": ("smtp.postmarkapp.com", 587),
    "resend": ("smtp.resend.com", 587),
    "smtp2go": ("mail.smtp2go.com", 587),
    "smtp2go-eu": ("mail-eu.smtp2go.com", 587),
}
"""Name → host and STARTTLS port. Amazon SES is missing: its host names the region."""
