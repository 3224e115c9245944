"""HTTP/2 over TLS with the h2 package."""

from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from .link import TlsLink
from .stream import FIN, Head, Stream, joined

CANCEL = 0x8
WINDOW_BYTES = 1 << 24


def connect(proxy: str, ca: Path) -> "Connection":
    return Connection(proxy, ca)


class Connection:
    """Frames for which h2 has no method can be written to the link directly."""

    def __init__(self, proxy: str, ca: Path) -> None:
        self.proxy = proxy
        self.link = TlsLink(proxy, ca, ["h2"])
        assert self.link.alpn == "h2", f"ALPN {self.link.alpn}"
        # Validation is off: what is sent here is what a test says.
        configuration = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(configuration)
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES})
        self.h2.increment_flow_control_window(WINDOW_BYTES)
        self.streams: dict[int, H2Stream] = {}
        self.settings_seen = False
        self.goaway: int | None = None
        self.pings_answered = 0
        self.flush()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.link.send(data)

    def pump(self, seconds: float) -> None:
        self.flush()
        if not self.link.received:
            self.link.pump(seconds)
        data = bytes(self.link.received)
        self.link.received.clear()
        for event in self.h2.receive_data(data) if data else []:
            self._handle_event(event)
        if self.link.end is None:
            self.flush()
        else:
            for stream in self.streams.values():
                stream.end = stream.end or f"connection {self.link.end}, GOAWAY {self.goaway}"

    def _handle_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settings_seen = True
            case h2.events.PingAckReceived():
                self.pings_answered += 1
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code)
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if (stream := self.streams.get(getattr(event, "stream_id", None) or 0)) is not None:
            stream.handle_event(event)

    def request(self, head: Head) -> "H2Stream":
        stream = H2Stream(self)
        if head.protocol:
            # RFC 8441 section 3: not before the server has said so.
            stream.wait(lambda: self.settings_seen or self.link.end is not None, "SETTINGS")
            enabled = self.h2.remote_settings.enable_connect_protocol
            assert enabled == 1, f"SETTINGS_ENABLE_CONNECT_PROTOCOL is {enabled}"
        lines = [(":method", "CONNECT" if head.protocol or not head.path else "GET")]
        lines += [(":protocol", head.protocol)] if head.protocol else []
        lines += [(":scheme", "https")] if head.path else []
        lines += [(":authority", head.authority)]
        lines += [(":path", head.path)] if head.path else []
        lines += head.fields.items()
        stream.id = self.h2.get_next_available_stream_id()
        self.streams[stream.id] = stream
        self.h2.send_headers(stream.id, lines, end_stream=lines[0][1] == "GET")
        self.flush()
        return stream


class H2Stream(Stream):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.id = 0

    def handle_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                fields = joined(event.headers)
                self.status = int(fields.pop(":status"))
                self.fields = fields
            case h2.events.DataReceived():
                self.received += event.data
            case h2.events.StreamEnded():
                self.end = FIN
            case h2.events.StreamReset():
                # A server that has finished and wants no more says so with NO_ERROR (RFC 9113 section 8.1).
                self.end = self.end or f"reset {int(event.error_code):#x}"

    def set_patience(self, seconds: float) -> None:
        super().set_patience(seconds)
        self.connection.link.wait_seconds = seconds

    def pump(self, seconds: float) -> None:
        self.connection.pump(seconds)

    def send(self, data: bytes) -> None:
        state, view = self.connection.h2, memoryview(data)
        while view:
            self.wait(lambda: not self.is_writable() or state.local_flow_control_window(self.id) > 0, "window")
            assert self.is_writable(), f"ended with {self.end} while sending"
            room = min(state.local_flow_control_window(self.id), state.max_outbound_frame_size, len(view))
            state.send_data(self.id, view[:room].tobytes())
            view = view[room:]
            self.connection.flush()

    def finish(self) -> None:
        self.connection.h2.end_stream(self.id)
        self.connection.flush()

    def abort(self) -> None:
        self.connection.h2.reset_stream(self.id, CANCEL)
        self.connection.flush()

    def close(self) -> None:
        self.connection.link.close()

    def is_closed(self) -> bool:
        return self.connection.link.end is not None
