"""Response encoder: the check of header fields."""

from __future__ import annotations

import pytest

from authproxy.http import response_encoder


def test_encode_fields_with_control_character_raises() -> None:
    """The last check against response splitting."""
    for value in (b"a\r\nb", b"a\nb", b"a\rb", b"a\0b"):
        with pytest.raises(ValueError, match="x-a"):
            response_encoder.encode_fields(((b"x-a", value),))
