"""A claimed port is taken by no other woundray process; a server may listen on it."""

import signal
import socket
import subprocess
import sys

import pytest

from woundray.errors import UserError
from woundray.system.ports import claimed_port, is_free, next_free_port

CLAIM = """
import sys
from woundray.system.ports import claimed_port
with claimed_port(int(sys.argv[1])) as port:
    print(port, flush=True)
    sys.stdin.read()
"""


def holder(first: int) -> subprocess.Popen[str]:
    """Another process that claims the first free port from `first` on."""
    command = [sys.executable, "-c", CLAIM, str(first)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def port() -> int:
    """One that is free, with free ones behind it."""
    return next(port for port in range(20000, 60000, 60) if all(is_free(port + more) for more in range(8)))


def test_processes_that_start_at_once_get_different_ports_though_nobody_listens_yet(port: int) -> None:
    started = [holder(port) for _ in range(6)]
    try:
        claimed = [int(process.stdout.readline()) for process in started if process.stdout]
        assert sorted(claimed) == [port + more for more in range(6)]
        assert all(is_free(one) for one in claimed)
        started[claimed.index(port)].send_signal(signal.SIGKILL)  # nothing is cleaned up
        started[claimed.index(port)].wait()
        assert next_free_port(port) == port
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_a_server_may_listen_on_a_claimed_port_and_others_pass_it_over(port: int) -> None:
    with claimed_port(port) as held, socket.socket() as server:
        assert held == port
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert next_free_port(port) == port + 1
    assert next_free_port(port) == port


def test_ports_that_are_all_taken_are_one_line() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 65535))
        server.listen()
        with pytest.raises(UserError, match=r"study.dashboard_port: 65535 and the 49 ports after it are in use"):
            next_free_port(65535)
