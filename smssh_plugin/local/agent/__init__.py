"""The fake agent: a program with amazon-ssm-agent's command line and protocol, for the local emulator alone.

It serves the four kinds of sessions (`session_kind.py`): ports, shells, and commands with and without a terminal. Run
Command is not supported.
"""
