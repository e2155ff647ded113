# The two commands of the README, `make demo` and `make test`, and what stands behind them.
PYTHON ?= python3
WORKERS ?= 3
GROUPS := --group docs --group examples --group test --group lint --group types

# Tests start thousands of interpreters: those that may keep byte code do, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-containers test-cuts test-fuzz test-kills test-properties test-sdks bench docs docs-site lint types \
	environments clean

demo: environments
	@.venv/bin/python examples/pipelines/churn/pipeline.py --local .venv-image --report report
	@cat examples/pipelines/churn/next-steps.txt

# Most of a test is waiting for other processes, so there is room for more workers than cores. One file stays together.
# A test that needs a program that is missing here is skipped, and says how to get it; with SMSSH_TEST_MISSING=fail or
# CI=true it fails. `.venv/bin/python -m tests.needs` prints the Debian packages; dev/roots.sh makes the Debian roots.
test: environments
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# What starts no process and takes no second: tests/fast.py, which holds those files to it.
test-fast: environments
	.venv/bin/python -m pytest -n 2 --dist loadfile $$(.venv/bin/python -m tests.fast) $(PYTEST_ARGS)

# 10,000 requests of the service model's shapes a property, with pipeline variables anywhere; SMSSH_TEST_EXAMPLES=...
test-properties: environments
	SMSSH_TEST_EXAMPLES=$${SMSSH_TEST_EXAMPLES:-10000} .venv/bin/python -m pytest tests/submit/request/test_properties.py $(PYTEST_ARGS)

# 500 random kills over the fast jobs; SMSSH_TEST_SEED=... repeats a run, SMSSH_TEST_KILLS=... does fewer.
test-kills: environments
	SMSSH_TEST_KILLS=$${SMSSH_TEST_KILLS:-500} .venv/bin/python -m pytest -s tests/faults/test_kills.py $(PYTEST_ARGS)

# 200 transfers of 20 MB each way by ssh, with connections of either side cut at random bytes all the while.
# SMSSH_TEST_SEED=... repeats a run's choices, SMSSH_TEST_CUTS=... does fewer; sshd where it is installed.
test-cuts: environments
	SMSSH_TEST_CUTS=$${SMSSH_TEST_CUTS:-200} SMSSH_TEST_CUT_BYTES=$${SMSSH_TEST_CUT_BYTES:-20000000} \
		.venv/bin/python -m pytest -s tests/session/test_cuts.py $(PYTEST_ARGS)

# A million malformed frames against client, service and fake agent; SMSSH_TEST_FRAMES=... sends fewer.
test-fuzz: environments
	SMSSH_TEST_FRAMES=$${SMSSH_TEST_FRAMES:-1000000} .venv/bin/python -m pytest -s tests/session/test_fuzz.py $(PYTEST_ARGS)

# Every kind of step and job of each supported version of the SageMaker SDK, before and after, as one table.
test-sdks: environments
	SMSSH_TEST_SDKS=all .venv/bin/python -m pytest -q -p no:randomly -W ignore tests/submit/test_sdks.py $(PYTEST_ARGS)

# The budgets of the design, each against its reference; BENCH_ARGS=--check fails where one is not met.
bench: environments
	@.venv/bin/python -m benchmarks $(BENCH_ARGS)

docs: environments
	.venv/bin/python dev/option_fields.py
	.venv/bin/python dev/docs.py

# The pages as a site, in build/site: open build/site/index.html. A link that leads nowhere is an error.
docs-site: environments
	.venv/bin/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -b html docs build/site

# Every launcher in every kind of container, for real, as one table. As root: it starts a dockerd of its own.
test-containers: environments
	@command -v dockerd >/dev/null && command -v mmdebstrap >/dev/null || \
		{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends docker.io mmdebstrap; }
	.venv/bin/python -m pytest -m docker -p no:randomly tests/docker $(PYTEST_ARGS)

lint: environments
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: environments
	.venv/bin/mypy smssh_plugin

environments:
	@$(PYTHON) dev/environments.py $(GROUPS)

clean:
	rm -rf .venv .venv-image .work report build dist *.egg-info
