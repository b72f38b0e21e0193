"""A slow way to a server on loopback: bytes go through it at a rate, and the requests that begin are counted."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_PIECE = 2**14


@dataclass
class Link:
    """The way.

    Attributes:
        url: what a client is told.
        rate: bytes a second towards the server; 0: as fast as can be.
        requests: method and path of each request that went through.
    """

    url: str
    rate: float = 0
    requests: list[str] = field(default_factory=list)

    def uploads(self) -> list[str]:
        """Paths that files were sent to."""
        return [request.split()[1] for request in self.requests if request.startswith("PUT")]


@contextmanager
def slow_link(port: int) -> Iterator[Link]:
    """A way to a port for the time of a block. What a client sends is taken at once, as by a proxy that keeps it."""
    listener = socket.create_server(("127.0.0.1", 0))
    link = Link(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # the block has ended
                return
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_carry, args=(client, server, link), daemon=True).start()
            threading.Thread(target=_carry, args=(server, client, None), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield link
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _carry(source: socket.socket, target: socket.socket, link: Link | None) -> None:
    """Until one side hangs up; a piece that is a request's begin is noted."""
    try:
        while piece := source.recv(_PIECE):
            if link is not None:
                start = re.match(rb"(GET|POST|PUT|PATCH) (\S+) HTTP", piece)
                link.requests += [start[0].decode()] if start else []
                time.sleep(len(piece) / link.rate if link.rate else 0)
            target.sendall(piece)
    except OSError:
        pass
    finally:
        for end in (source, target):
            end.close()
