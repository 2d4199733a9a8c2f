"""Decode header blocks (HPACK, RFC 7541), with bounded work and memory."""

from __future__ import annotations

from authproxy_core.bounded_cache import BoundedCache

from .field_kinds import Entry, make_entry
from .frames import ConnectionFault, ErrorCode
from .huffman import MAX_SLOW_BYTES, decode_fast, decode_slow
from .static_table import STATIC_TABLE

DEFAULT_TABLE_BYTES = 4096
# Encoders index neither paths nor values that would fill their table, such as session
# cookies, so clients send the same strings in every request.
MAX_CACHE_BYTES, MAX_CACHED_BYTES = 4 << 20, 8 << 10
ENTRY_OVERHEAD = 200  # bytes: two objects and the dict entry
_texts: BoundedCache[bytes, bytes] = BoundedCache(MAX_CACHE_BYTES)
MAX_INTEGER_BYTES = 5  # continuation bytes of an integer
STATIC = tuple(make_entry(name, value) for name, value in STATIC_TABLE)
FIRST_DYNAMIC = len(STATIC) + 1


class HeaderDecoder:
    """The decoder of one connection.

    *max_fields* limits the fields of a header block, *table_bytes* the dynamic table.
    ``slow_bytes`` counts the bytes of the last block that were slow to decode.
    """

    __slots__ = ("_allowed", "_dynamic", "_limit", "_max_fields", "_size", "slow_bytes")

    def __init__(self, max_fields: int, table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        self._max_fields = max_fields
        self._allowed = table_bytes
        self._limit = DEFAULT_TABLE_BYTES  # chosen by the encoder
        self._dynamic: list[Entry] = []  # the newest is the last
        self._size = 0
        self.slow_bytes = 0

    def decode(self, block: bytes) -> list[Entry]:
        """Return the fields in order. Raises `ConnectionFault`.

        Only the references grow with the number of indexed fields, so the caller can
        check the total size afterwards.
        """
        self.slow_bytes = 0
        try:
            return self._decode(block)
        except IndexError:
            raise _fault("truncated header block") from None

    def _decode(self, block: bytes) -> list[Entry]:
        entries: list[Entry] = []
        add = entries.append
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            at += 1
            if first >= 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _continue_integer(block, at, index)
                add(self._entry(index))
                continue
            if first & 0x60 == 0x20:
                if entries:
                    raise _fault("size update after a field")
                size = first & 0x1F
                if size == 0x1F:
                    size, at = _continue_integer(block, at, size)
                self._resize(size)
                continue
            mask = 0x3F if first & 0x40 else 0x0F
            index = first & mask
            if index == mask:
                index, at = _continue_integer(block, at, index)
            if index:
                name = self._entry(index)[0][0]
            else:
                name, _, at = self._string(block, at)
            value, visible, at = self._string(block, at)
            entry = make_entry(name, value, visible=visible)
            if first & 0x40:
                self._insert(entry)
            add(entry)
            if len(entries) > self._max_fields:
                break
        if len(entries) > self._max_fields:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"more than {self._max_fields} fields"
            )
        return entries

    def _entry(self, index: int) -> Entry:
        if index < FIRST_DYNAMIC:
            if index:
                return STATIC[index - 1]
            raise _fault("index 0")
        position = index - FIRST_DYNAMIC
        if position >= len(self._dynamic):
            raise _fault("index beyond the table")
        return self._dynamic[-1 - position]

    def _string(self, block: bytes, at: int) -> tuple[bytes, bool, int]:
        """Return a string, whether it is known to be visible, and the index after it."""
        first = block[at]
        at += 1
        length = first & 0x7F
        if length == 0x7F:
            length, at = _continue_integer(block, at, length)
        end = at + length
        data = block[at:end]
        if len(data) < length:
            raise _fault("truncated string")
        if first < 0x80:
            return data, False, end
        text = _texts.get(data)
        if text is not None:
            return text, True, end
        text = decode_fast(data)
        if text is not None:
            if length <= MAX_CACHED_BYTES:
                _texts.put(data, text, 2 * length + ENTRY_OVERHEAD)
            return text, True, end
        self.slow_bytes += length
        if self.slow_bytes > MAX_SLOW_BYTES:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "too many bytes with rare characters"
            )
        return decode_slow(data), False, end

    def _insert(self, entry: Entry) -> None:
        self._size += entry[2]
        self._dynamic.append(entry)
        if self._size > self._limit:
            self._evict()

    def _evict(self) -> None:
        """Remove the oldest entries, perhaps all, until the table fits (§4.4)."""
        dynamic, count = self._dynamic, 0
        while self._size > self._limit:
            self._size -= dynamic[count][2]
            count += 1
        del dynamic[:count]

    def _resize(self, size: int) -> None:
        if size > self._allowed:
            raise _fault("table size above the limit")
        self._limit = size
        self._evict()


def _continue_integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Return an integer that does not fit into its prefix, and the index after it."""
    shift = 0
    for position in range(at, at + MAX_INTEGER_BYTES):
        byte = block[position]
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise _fault("integer is too long")


def _fault(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"HPACK: {reason}")
