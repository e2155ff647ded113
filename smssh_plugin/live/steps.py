"""The steps of `smssh doctor --live`, smallest call first."""

from __future__ import annotations

from . import account_steps, activation_steps, job_steps, node_steps

__all__ = ["STEPS"]

STEPS = {
    each.id: each
    for module in (account_steps, activation_steps, node_steps, job_steps)
    for each in module.STEPS
}
"""By id, smallest call first; the last one of a module ends what its others need."""
