# The two commands of the README, `make demo` and `make test`, and what stands behind them.
PYTHON ?= python3
GROUPS := --group examples --group test --group lint --group types

.PHONY: demo test test-containers test-kills test-sdks bench docs lint types environments clean

demo: environments
	@.venv/bin/python examples/pipelines/churn/pipeline.py --local .venv-image --report report
	@cat examples/pipelines/churn/next-steps.txt

test: environments
	.venv/bin/python -m pytest $(PYTEST_ARGS)

# 500 random kills over the fast jobs; SMSSH_TEST_SEED=... repeats a run, SMSSH_TEST_KILLS=... does fewer.
test-kills: environments
	SMSSH_TEST_KILLS=$${SMSSH_TEST_KILLS:-500} .venv/bin/python -m pytest -s tests/faults/test_kills.py $(PYTEST_ARGS)

# Every kind of step and job of each supported version of the SageMaker SDK, before and after, as one table.
test-sdks: environments
	SMSSH_TEST_SDKS=all .venv/bin/python -m pytest -q -p no:randomly -W ignore tests/submit/test_sdks.py $(PYTEST_ARGS)

# The budgets of the design, each against its reference; BENCH_ARGS=--check fails where one is not met.
bench: environments
	@.venv/bin/python -m benchmarks $(BENCH_ARGS)

docs: environments
	.venv/bin/python dev/docs.py

# Every carrier in every kind of container, for real, as one table. As root: it starts a dockerd of its own.
test-containers: environments
	@command -v dockerd >/dev/null && command -v mmdebstrap >/dev/null || \
		{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends docker.io mmdebstrap; }
	.venv/bin/python -m pytest -m docker -p no:randomly tests/docker $(PYTEST_ARGS)

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
