"""A standby in the place of the provider that a directory names: what a failover makes of a spec. Pure."""

from __future__ import annotations

import hashlib
import json

from reconciler.desired.spec import Spec


def basis(spec: Spec) -> str:
    """Return a digest of what a person says about who delivers whose mail: where it is another, no failover holds."""
    smtp = spec.smtp
    consumers = {name: consumer.provider for name, consumer in smtp.consumers.items()}
    terms = smtp.failover.model_dump() if smtp.failover else None
    text = json.dumps([smtp.provider, terms, consumers], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def failed_over(spec: Spec) -> Spec:
    """Return a spec in which whoever uses `smtp.provider` uses the standby; one without ``smtp.failover`` as it is.

    A consumer with another provider of its own keeps that. The records of the provider that is left stay published,
    as everyone is to go back to it.
    """
    smtp = spec.smtp
    first, to = smtp.provider, smtp.failover.to if smtp.failover else None
    if to is None or first is None or first not in smtp.providers:
        return spec
    consumers = {
        name: consumer.model_copy(update={"provider": to}) if consumer.provider == first else consumer
        for name, consumer in smtp.consumers.items()
    }
    providers = smtp.providers | {first: smtp.providers[first].model_copy(update={"standby": True})}
    made = smtp.model_copy(update={"provider": to, "consumers": consumers, "providers": providers})
    return spec.model_copy(update={"smtp": made})
