"""The fake agent: a program with amazon-ssm-agent's command line and protocol, for the local emulator alone.

It serves Port sessions to ports of its own machine, as AWS-StartSSHSession starts them; no shells, no
documents, no Run Command. `install.install` puts it into a folder as `amazon-ssm-agent`.
"""
