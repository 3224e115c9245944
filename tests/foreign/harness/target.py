"""TCP targets inside the test process: one whose connections the test holds, and one that echoes."""

import socket
import threading

from .carriers.link import RECEIVE_BYTES, WAIT_SECONDS, Link


class Target:
    """Listens on loopback; each connection that arrives is handed to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_SECONDS)
        self._accepted: list[Link] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> Link:
        connection, _ = self._listener.accept()
        self._accepted.append(Link(connection))
        return self._accepted[-1]

    def close(self) -> None:
        for link in self._accepted:
            link.close()
        self._listener.close()


class EchoTarget:
    """Sends everything back, ends its direction when the other one ended; a thread for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="TCP echo", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), name="TCP echo connection", daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(RECEIVE_BYTES):
                    connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                # A client that breaks off is what some tests are about.
                pass

    def close(self) -> None:
        # Wakes the thread that accepts, which `close` alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
