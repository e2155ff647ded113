#!/bin/sh
# Type-check an installed copy: hooks/ and entrypoints/ are smssh_plugin.hooks and smssh_plugin.entrypoints only there.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .work/uv/bin/uv)
rm -rf .work/types build/lib # setuptools keeps there what the checkout had once
"$uv" pip install --quiet --no-deps --python .venv/bin/python --target .work/types .
cd .work/types
MYPYPATH=. ../../.venv/bin/mypy --config-file ../../pyproject.toml --python-executable ../../.venv/bin/python -p smssh_plugin
