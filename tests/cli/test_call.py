"""call.py, in place: values, streams, uploads, bytes, and what is told of what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, Served, serving
from trio_streamrpc import Call
from trio_streamrpc.cli import main
from trio_streamrpc.cli.serve import token_check
from trio_streamrpc.interceptors import authorize


def signals_once_started(served: Served, number: int = signal.SIGINT) -> None:
    """Send this process a signal as soon as the method runs that waits for ever."""

    def send() -> None:
        assert served.market.started.wait(20)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ACME", "ACME"),
        ('"ACME"', "ACME"),
        ("5", 5),
        ("-1.5", -1.5),
        ("null", None),
        ('{"a": [1, true]}', {"a": [1, True]}),
        ("", ""),
        ("a b", "a b"),
        ("NaN", "NaN"),
        ('"@file"', "@file"),
        ("grün", "grün"),
    ],
)
def test_values(served: Served, invoke: Invoke, word: str, value: object) -> None:
    run = invoke("call", served.url, "echo", "--", word)
    assert (run.code, run.err) == (0, "")
    assert run.out.count("\n") == 1
    assert json.loads(run.out) == value


def test_arguments_by_name(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "price", "--kw", "symbol=A=B", "--kw", "at=2.5")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out) == {"symbol": "A=B", "at": 2.5}


def test_without_reflection(silent: Served, invoke: Invoke) -> None:
    run = invoke("call", silent.url, "price", "ACME", "--kw", "at=1")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out) == {"symbol": "ACME", "at": 1.0}


def test_a_terminal_is_not_told_what_to_do(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "echo", json.dumps("\x1b[31m \x7f \x9b2J é"))
    assert run.out == '"\\u001b[31m \\u007f \\u009b2J é"\n'


def test_a_stream_is_printed_line_by_line(served: Served, silent: Served, invoke: Invoke) -> None:
    for each in (served, silent):
        run = invoke("call", each.url, "few", "3", "--window", "1")
        assert (run.code, run.out, run.err) == (0, "0\n1\n2\n", "")
        assert each.market.runs == ["few"], "it ran once, whether its kind was known or not"


def test_what_came_before_an_error_is_printed(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "few", "2", "fail")
    assert (run.code, run.out, run.err) == (1, "0\n1\n", "Error: ValueError: no more\n")


# --- uploads


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n\n2\n  3  \n4", encoding="utf-8")
    return f"@{path}"


def test_a_file_is_uploaded(served: Served, silent: Served, invoke: Invoke, numbers: str) -> None:
    for each in (served, silent):
        run = invoke("call", each.url, "total", numbers)
        assert (run.code, run.out, run.err) == (0, "10\n", "")
        run = invoke("call", each.url, "doubled", "--kw", f"numbers={numbers}")
        assert (run.code, run.out, run.err) == (0, "2\n4\n6\n8\n", "")
        assert each.market.runs == ["total", "doubled"], "each ran once"


def test_the_standard_input_is_uploaded(
    served: Served, silent: Served, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe is read once, whichever of the two calls it was that was taken."""
    for each in (served, silent):
        reads, writes = os.pipe()
        os.write(writes, b"".join(b"%d\n" % number for number in range(300)))
        os.close(writes)
        with open(reads, encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            run = invoke("call", each.url, "doubled", "@-")
        assert (run.code, run.err) == (0, "")
        assert [int(line) for line in run.out.splitlines()] == [2 * each for each in range(300)]


def test_an_upload_is_read_as_it_is_taken(
    served: Served, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without an end: what is not asked for is not read, and nobody waits for it."""
    reads, writes = os.pipe()
    stop = threading.Event()

    def fill() -> None:
        with open(writes, "wb", buffering=0) as file:
            try:
                while not stop.is_set():
                    file.write(b'"%s"\n' % (b"x" * 1000))
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        with open(reads, encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            run = invoke("call", served.url, "first", "@-")
            stop.set()
        assert (run.code, run.err) == (0, "")
        assert json.loads(run.out) == "x" * 1000
    finally:
        thread.join(20)
    assert not thread.is_alive()


def test_a_file_that_holds_no_json(served: Served, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("1\n{2\n", encoding="utf-8")
    run = invoke("call", served.url, "total", f"@{path}")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"Error: {path}:2: this is no JSON: ")
    assert run.err.count("\n") == 1


def test_a_whole_file_as_one_value(served: Served, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "symbol.json"
    path.write_text('\n"ACME"\n', encoding="utf-8")
    run = invoke("call", served.url, "price", f"@{path}")
    assert json.loads(run.out)["symbol"] == "ACME"


# --- bytes


def test_bytes_from_and_to_files(
    served: Served,
    silent: Served,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "data.bin"
    path.write_bytes(data)

    def out(*args: str) -> bytes:
        monkeypatch.setattr(sys, "argv", ["trio-streamrpc", "call", *args, "--raw"])
        with pytest.raises(SystemExit) as ended:
            main()
        found = capfdbinary.readouterr()
        assert (ended.value.code, found.err) == (0, b"")
        return found.out

    for each in (served, silent):
        assert out(each.url, "copy", f"@{path}") == data
        assert out(each.url, "data", "4") == bytes(range(256)) * 4
    # A value, since that is what the parameter takes; what is no bytes is JSON all the same.
    assert out(served.url, "size", f"@{path}") == b"300000\n"


def test_bytes_as_json(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "size", '"AAEC"')
    assert (run.code, run.out) == (0, "3\n")


# --- what goes wrong


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["fail", "no\nway \x1b[31m"], 1, "ValueError: no way \\x1b[31m"),
        (["refuse"], 1, "NotFound: there is none"),
        (["late"], 4, "DeadlineExceeded: it took too long"),
        (["nothing"], 1, "Unimplemented: no method 'nothing' on the other side"),
        (["price", "5"], 1, "InvalidArgument: Expected `str`, got `int` - at `$.symbol`"),
        (["slow", "A", "--timeout", "0.2"], 4, "not done within 0.2 s"),
        (["few", "0", "wait", "--timeout", "0.2"], 4, "not done within 0.2 s"),
        (["build"], 2, "build takes a callback, 'progress', which no command can give"),
        (["account"], 2, "account is a context, which lasts for a block: no command calls it"),
        (["echo", "{1"], 2, "'{1' is no JSON: "),
        (["echo", "--kw", "5"], 2, "--kw '5': it is to be name=json"),
        (["echo", "--kw", "a=1", "--kw", "a=2"], 2, "--kw a: it is given twice"),
        (["echo", "@-", "@-"], 2, "@- is given twice"),
        (["echo", "@/no/where"], 2, "cannot read '/no/where': No such file or directory"),
        (["echo", "@/"], 2, "cannot read '/': "),
        (["echo", "--header", "x"], 2, "--header 'x': it is to be k:v"),
        (["echo", "--metadata", "=x"], 2, "--metadata '=x': it is to be k=v"),
        (["echo", "--token-env", "NO_SUCH"], 2, "--token-env NO_SUCH: there is no such variable"),
    ],
)
def test_what_goes_wrong(
    served: Served, invoke: Invoke, args: list[str], code: int, said: str
) -> None:
    run = invoke("call", served.url, *args)
    assert (run.code, run.out) == (code, "")
    assert run.err.startswith(f"Error: {said}")
    assert run.err.count("\n") == 1


def test_nobody_is_there(invoke: Invoke) -> None:
    run = invoke("call", "ws://127.0.0.1:1", "price")
    assert (run.code, run.out) == (3, "")
    assert run.err.startswith("Error: Unavailable: cannot connect to ws://127.0.0.1:1")
    assert run.err.count("\n") == 1


def test_no_url(invoke: Invoke) -> None:
    run = invoke("call", "localhost:8765", "price")
    assert (run.code, run.out) == (2, "")
    assert "is no URL" in run.err


def test_a_server_that_goes_away(invoke: Invoke) -> None:
    with serving() as served:

        def stop() -> None:
            assert served.market.started.wait(20)
            served.stop()

        thread = threading.Thread(target=stop)
        thread.start()
        run = invoke("call", served.url, "slow", "A")
        thread.join()
    assert (run.code, run.out) in ((1, ""), (3, ""))
    assert run.err.startswith("Error: ")
    assert run.err.count("\n") == 1


def test_traceback(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "fail", "it", "--traceback")
    assert run.code == 1
    assert run.err.startswith("Traceback (most recent call last):\n")
    assert run.err.endswith("\nError: ValueError: it\n")


def test_words_that_only_look_like_a_refusal(silent: Served, invoke: Invoke) -> None:
    """A method's own error is told, and it has run once."""
    run = invoke("call", silent.url, "misleading")
    assert (run.code, run.out) == (1, "")
    assert run.err == "Error: InvalidArgument: another service gives a stream\n"
    assert silent.market.runs == ["misleading"]


def test_a_context_without_reflection(silent: Served, invoke: Invoke) -> None:
    run = invoke("call", silent.url, "account")
    assert (run.code, run.out) == (1, "")
    assert "account is a context" in run.err


# --- being told to stop


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_a_stream(served: Served, invoke: Invoke, number: int, code: int) -> None:
    """R7: its finally has run before the command ends."""
    signals_once_started(served, number)
    run = invoke("call", served.url, "few", "2", "wait")
    assert (run.code, run.err) == (code, "")
    assert "0\n1\n".startswith(run.out)
    assert served.market.ended == ["few, then wait"]


def test_a_signal_ends_a_call(served: Served, silent: Served, invoke: Invoke) -> None:
    for each in (served, silent):
        signals_once_started(each)
        run = invoke("call", each.url, "slow", "A")
        assert (run.code, run.out, run.err) == (130, "", "")
        assert each.market.ended == ["A"]


def test_a_signal_while_it_connects(invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def send() -> None:
            accepted, _ = listener.accept()
            os.kill(os.getpid(), signal.SIGINT)
            accepted.recv(100_000)
            accepted.recv(1)
            accepted.close()

        thread = threading.Thread(target=send)
        thread.start()
        run = invoke("call", f"ws://127.0.0.1:{port}", "slow", "A")
        thread.join(20)
    assert (run.code, run.out, run.err) == (130, "", "")


def test_the_time_is_up_while_it_connects(invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = invoke("call", f"ws://127.0.0.1:{port}", "price", "--timeout", "0.2")
    assert (run.code, run.out, run.err) == (4, "", "Error: not done within 0.2 s\n")


def test_the_time_that_is_up_ends_the_method_too(served: Served, invoke: Invoke) -> None:
    run = invoke("call", served.url, "few", "1", "wait", "--timeout", "0.5")
    assert run.code == 4
    assert "0\n".startswith(run.out)
    assert len(served.market.ended) == len(served.market.runs)


# --- what goes along


def test_metadata_and_headers(served: Served, invoke: Invoke) -> None:
    run = invoke(
        *("call", served.url, "metadata", "--metadata", "user= me"),
        *("--metadata", "a=b=c", "--header", "X-Test: yes: it is"),
    )
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out) == {"metadata": {"user": " me", "a": "b=c"}, "x": "yes: it is"}


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_a_token(scheme: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "sécret")
    monkeypatch.setenv("WRONG", "secret")
    with serving(url=f"{scheme}://127.0.0.1:0", authenticate=token_check("sécret")) as served:
        run = invoke("call", served.url, "echo", "1", "--token-env", "TOKEN")
        assert (run.code, run.out, run.err) == (0, "1\n", "")
        for args in ([], ["--token-env", "WRONG"]):
            run = invoke("call", served.url, "echo", "1", *args)
            assert (run.code, run.out) == (3, "")
            assert run.err == "Error: Unauthenticated: a valid bearer token is needed\n"


def test_a_description_that_is_not_for_everybody(invoke: Invoke) -> None:
    """Interceptors may refuse it like any call; who may not see it calls all the same."""
    asked: list[str] = []

    def may(call: Call) -> bool:
        asked.append(call.method)
        return call.method != "streamrpc.describe"

    with serving(reflection=True, interceptors=[authorize(may)]) as served:
        run = invoke("call", served.url, "few", "2")
        assert (run.code, run.out, run.err) == (0, "0\n1\n", "")
        assert served.market.runs == ["few"]
        run = invoke("methods", served.url)
        assert (run.code, run.out) == (1, "")
        assert run.err == "Error: PermissionDenied: streamrpc.describe: permission denied\n"
    assert asked == ["streamrpc.describe", "few", "streamrpc.describe"]


# --- progress


def test_progress_in_a_pipe_is_one_line_at_the_end(
    served: Served, invoke: Invoke, numbers: str
) -> None:
    run = invoke("call", served.url, "few", "3", "--progress")
    assert (run.code, run.out) == (0, "0\n1\n2\n")
    assert run.err.startswith("3 items   3 bytes   ")
    assert "items/s" in run.err
    assert run.err.count("\n") == 1
    run = invoke("call", served.url, "total", numbers, "--progress")
    assert (run.code, run.out) == (0, "10\n")
    assert run.err.startswith("4 items   12 bytes   ")
    run = invoke("call", served.url, "few", "1", "fail", "--progress")
    assert run.code == 1
    assert [line.split()[0] for line in run.err.splitlines()] == ["1", "Error:"]
