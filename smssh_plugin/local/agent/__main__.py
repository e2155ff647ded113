"""`python -m smssh_plugin.local.agent`, and what the installed `amazon-ssm-agent` runs."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
