"""A UDP target that sends every datagram back, empty ones included.

Prints `listening on ADDR:PORT` once it is bound. Datagrams that do not fit one UDP packet on the way back are
reported on stderr and dropped.
"""

import argparse
import socket
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDR", help="IPv4 or IPv6 address")
    arguments = parser.parse_args()

    family = socket.AF_INET6 if ":" in arguments.listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as echo:
        # Fifty tunnels may speak at once; a full receive buffer would look like loss in the relay.
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        echo.bind((arguments.listen, 0))
        host, port = echo.getsockname()[:2]
        print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
        while True:
            payload, sender = echo.recvfrom(65535)
            try:
                echo.sendto(payload, sender)
            except OSError as error:
                print(f"{len(payload)} bytes to {sender}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
