"""Secrets that a name gives away do not leave the container, and nothing else is taken out of a report."""

import json
import time

import pytest

from smssh_plugin.container.redaction import MASK, Redaction, is_secret_name
from tests.waiting import LIMIT

NOTHING = Redaction({})


@pytest.mark.parametrize(
    "name",
    [
        *(
            "api-key",
            "API_KEY",
            "apikey",
            "WANDB_API_KEY",
            "hf_token",
            "HF_TOKEN",
            "accessToken",
            "token",
            "key",
            "secret",
        ),
        *(
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SESSION_TOKEN",
            "db-password",
            "PGPASSWORD",
            "passwd",
            "pwd",
        ),
        *(
            "client_secret",
            "SECRET_NAME",
            "password-file",
            "credentials",
            "x-api-key",
            "Authorization",
            "ssh-passphrase",
        ),
    ],
)
def test_names_of_secrets(name) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "max-tokens",
            "tokenizer",
            "tokenizer-name",
            "key-column",
            "keys",
            "monkey",
            "hotkey",
            "keyboard",
            "num_keys",
        ),
        *("lr", "output-dir", "max_new_tokens", "author", "passes", "token_type_ids", "use_keypoints", ""),
    ],
)
def test_names_of_others(name) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("python t.py --api-key hf_abc --lr 1", "python t.py --api-key *** --lr 1"),
        ("python t.py --api_key=abc --max-tokens 512", "python t.py --api_key=*** --max-tokens 512"),
        ("HF_TOKEN=abc python t.py", "HF_TOKEN=*** python t.py"),
        ("['t', '--token', 'a b', '--lr', '1']", "['t', '--token', '***', '--lr', '1']"),
        ('{"password": "p\\"w", "user": "ann"}', '{"password": "***", "user": "ann"}'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("postgresql://ann:pw@db/x", "postgresql://ann:***@db/x"),
        ("found hf_abcdefghijklmnopqrstuv in it", "found *** in it"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("KeyError: 'token'", "KeyError: 'token'"),
        ("ValueError: invalid key: label", "ValueError: invalid key: label"),
        ("tokenizer=BertTokenizer(vocab_size=5)", "tokenizer=BertTokenizer(vocab_size=5)"),
        ("--tokenizer bert-base --key-column id", "--tokenizer bert-base --key-column id"),
        ("http://127.0.0.1:8080/ping", "http://127.0.0.1:8080/ping"),
        ("password is wrong", "password is wrong"),
        ("--password --lr 1", "--password --lr 1"),
    ],
)
def test_texts(text, shown) -> None:
    assert NOTHING.text(text) == shown


def test_the_words_of_a_command_line_are_exact() -> None:
    words = ["t", "--api-key", "two words", "--lr", "0.1", "-code", "x", "--token=a b", "HF_TOKEN=y z"]
    shown = ["t", "--api-key", MASK, "--lr", "0.1", "-code", MASK]
    assert NOTHING.command(words)[: len(shown)] == shown
    assert "x" not in " ".join(NOTHING.command(words)[-2:]).replace("***", "")


def test_values_of_the_jobs_variables_are_masked_wherever_they_are() -> None:
    redaction = Redaction(
        {"DB_PASSWORD": "correct horse", "MY_TOKEN": "1", "NAME": "correct", "A_KEY": "/etc/key"}
    )
    shown = redaction.everything(
        {"log_tail": ["1 correct horse, correct"], "a": [{"b": "/etc/key", "n": 5}], "c": None}
    )
    assert shown == {"log_tail": ["1 ***, correct"], "a": [{"b": "/etc/key", "n": 5}], "c": None}


@pytest.mark.parametrize("word", ["key", "a", "eyJ-", "token=", "x://", "-key ", "password'", "key.", "sk-"])
def test_a_megabyte_of_anything_costs_little(word) -> None:
    text = word * (1_000_000 // len(word))
    began = time.process_time()
    NOTHING.text(text)
    assert time.process_time() - began < 20


def test_the_report_of_a_job(container) -> None:
    """End to end: command line, traceback, output, other processes; and it can still be worked with."""
    script = container.script(
        "import os, subprocess, sys\n"
        "subprocess.Popen(['sh', '-c', 'sleep 100', 'x', '--api-key', 'sesame-open'])\n"
        "print('connecting with', os.environ['DB_PASSWORD'], flush=True)\n"
        "subprocess.run(['false', '--secret', 'sesame-open'], check=True)\n"
    )
    container.wrap(
        *("python", script, "--hf_token", "sesame-open", "--tokenizer", "bert"),
        PYTHONPATH=container.bundle,
        DB_PASSWORD="tiger-tiger",
        SMSSH_HOLD="failure",
    )
    container.wait_for("held")
    text = container.hook("report", "--json").stdout + (container.run_dir / "report.json").read_text()
    assert "sesame" not in text
    assert "tiger" not in text
    report = json.loads(container.hook("report", "--json").stdout)
    assert report["command"][-4:] == ["--hf_token", MASK, "--tokenizer", "bert"]
    assert "CalledProcessError" in report["error"]
    assert f"connecting with {MASK}" in report["log_tail"]
    assert "DB_PASSWORD" in report["environment_names"]
    assert "sesame" not in container.hook("report").stdout
    container.hook("release")
    container.processes[0].wait(LIMIT)
