"""The service setting of Systems Manager that lets Session Manager reach hybrid nodes."""

from __future__ import annotations

__all__ = ["ADVANCED", "TIER"]

TIER = "/ssm/managed-instance/activation-tier"
"""Its id, as GetServiceSetting and UpdateServiceSetting take it."""
ADVANCED = "advanced"
"""The value that it needs."""
