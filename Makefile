# The two commands of the README, `make demo` and `make test`, and what stands behind them.
PYTHON ?= python3
GROUPS := --group examples --group test --group lint --group types

.PHONY: demo test lint types environments clean

demo: environments
	@.venv/bin/python examples/pipelines/churn/pipeline.py --local .venv-image --report report
	@cat examples/pipelines/churn/next-steps.txt

test: environments
	.venv/bin/python -m pytest $(PYTEST_ARGS)

lint: environments
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# The packages of hooks/ and entrypoints/ get their names when the project is installed, so the type checker
# reads an installed copy.
types: environments
	@dev/types.sh

environments:
	@$(PYTHON) dev/environments.py $(GROUPS)

clean:
	rm -rf .venv .venv-image .work report build dist *.egg-info
