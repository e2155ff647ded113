"""`python -m smssh_plugin`: the command line, where `smssh` is not on PATH."""

import sys

from .cli import main

sys.exit(main())
