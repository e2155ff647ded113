"""Fixtures of the local emulator's tests."""

from .jobs_support import common, moto_endpoint, world

__all__ = ["common", "moto_endpoint", "world"]
