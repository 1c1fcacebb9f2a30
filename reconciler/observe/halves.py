"""The public halves of declared private keys: what a key's record publishes where the YAML does not say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler import keys
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets
from reconciler.target import Reveal


@dataclass(slots=True)
class PublicHalves:
    """Each private key is read once; its public half is no secret from then on."""

    secrets: Secrets = field(repr=False)
    _known: dict[tuple[SecretRef, str], str | Problem] = field(default_factory=dict)

    def of(self, ref: SecretRef, algorithm: str) -> str | Problem:
        """Return the public half of a declared private key, or why it can't be told."""
        if (ref, algorithm) not in self._known:
            half = self._known[ref, algorithm] = public_half(self.secrets, ref, algorithm)
            if isinstance(half, str):
                self.secrets.publish(half)
        return self._known[ref, algorithm]


def public_half(reveal: Reveal, ref: SecretRef, algorithm: str) -> str | Problem:
    """Derive the public half of a declared private key, or say why it can't be told."""
    try:
        return keys.public_half(algorithm, reveal(ref))
    except SecretUnreadable as error:
        problem = error.problems[0]
        return Problem(str(ref), f"the private key can't be read: {problem.where}: {problem.summary}", problem.hint)
    except ValueError as error:
        return Problem(str(ref), f"the private key {ref} {error}", "store the key in PEM, without a passphrase")
