"""HTTP/2 frames: the numbers of RFC 9113 and the serialization of short frames."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # of a client (RFC 9113 §3.4)
HEADER_BYTES = 9  # of a frame
MAX_FRAME_BYTES = 16_384  # the default SETTINGS_MAX_FRAME_SIZE, which is never raised
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
LAST_STREAM = 2**31 - 1  # the largest stream identifier

# Frame types (§6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
# Flags.
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
# Settings (§6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

FRAME_HEADER = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
SETTING = struct.Struct(">HI")
UINT32 = struct.Struct(">I")


class ErrorCode(IntEnum):
    """Error codes (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """A connection error (RFC 9113 §5.4.1); *reason* is for the log."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def protocol_fault(reason: str) -> ConnectionFault:
    """Return the error for frames that are not allowed."""
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)


def size_fault(kind: str) -> ConnectionFault:
    """Return the error for a frame of a wrong size."""
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{kind} of a wrong size")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a serialized frame."""
    return frame_header(len(payload), kind, flags, stream) + payload


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the header of a frame with *length* bytes of payload."""
    return FRAME_HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, UINT32.pack(code))


def goaway(last_stream: int, code: ErrorCode) -> bytes:
    """Return a GOAWAY frame without debug data."""
    return frame(GOAWAY, 0, 0, UINT32.pack(last_stream) + UINT32.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, UINT32.pack(increment))


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(
        SETTINGS, 0, 0, b"".join(SETTING.pack(key, values[key]) for key in values)
    )


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """Return a PING frame; *payload* has 8 bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def unpad(payload: bytes) -> bytes:
    """Return the payload of a padded frame without the padding (RFC 9113 §6.1)."""
    if not payload or payload[0] >= len(payload):
        raise protocol_fault("padding exceeds the frame")
    return payload[1 : len(payload) - payload[0]]


SETTINGS_ACK = frame(SETTINGS, ACK, 0)
