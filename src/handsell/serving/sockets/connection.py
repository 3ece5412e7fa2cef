"""One connection between a gateway and a replica of a stage: framing of messages, and the proof of the cluster's token.

The side that listens sends a challenge, the other one proves that it knows the key and challenges in turn, so that each
knows the other before the first call. The key never travels.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Any, cast

from handsell.serving.sockets.messages import (
    CHALLENGE,
    HEADER,
    PROOF,
    WELCOME,
    Buffer,
    Header,
    MessageError,
    decode,
    encode,
)

NONCE_BYTES = 32
STRANGER_BYTES = 1_024  # longest message of a side that has proved nothing yet
PROOF_S = 5.0  # after which a side that has proved nothing is left


def derive_key(token: str) -> bytes:
    """Return the key of stage calls, from which the cluster's token cannot be computed."""
    return hmac.digest(token.encode(), b"handsell stage calls", "sha256")


class MessageConnection(asyncio.BufferedProtocol):
    """Reads whole messages into memory of their own; `receive` gets those that follow the mutual proof."""

    def __init__(self, key: bytes, listens: bool):
        self._key, self._listens = key, listens
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._header: Header | None = None
        self._buffer, self._filled = bytearray(HEADER.size), 0
        self._transport: asyncio.Transport | None = None
        self.is_trusted = False
        self.is_open = False

    # -- for those who build on it ---------------------------------------------------------------------------

    def receive(self, kind: int, number: int, value: Any) -> None:
        raise NotImplementedError

    def trusted(self) -> None:
        """The other side has proved that it knows the key."""

    def lost(self, error: Exception | None) -> None:
        """The connection has ended."""

    def send(self, parts: list[Buffer]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(parts)

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    # -- asyncio ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast(asyncio.Transport, transport), True  # uvloop has classes of its own
        asyncio.get_running_loop().call_later(PROOF_S, self._close_to_stranger)
        if self._listens:
            self.send(encode(CHALLENGE, 0, self._nonce))

    def _close_to_stranger(self) -> None:
        if not self.is_trusted:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._buffer):
            return
        try:
            self._take()
        except MessageError:
            self.close()

    def _take(self) -> None:
        """Take a header or a whole message that has arrived."""
        if self._header is None:
            self._header = Header.read(self._buffer)
            size = self._header.tree + self._header.arrays
            if not self.is_trusted and size > STRANGER_BYTES:
                raise MessageError("expected a proof, got a longer message")
            self._buffer, self._filled = bytearray(size), 0
            if size:
                return
        header, data = self._header, self._buffer
        self._header, self._buffer, self._filled = None, bytearray(HEADER.size), 0
        value = decode(header, data)
        if self.is_trusted:
            self.receive(header.kind, header.number, value)
        else:
            self._prove(header.kind, value)

    # -- proof of the key --------------------------------------------------------------------------------------

    def _prove(self, kind: int, value: Any) -> None:
        if self._listens and kind == PROOF:
            nonce, proof = _read_pair(value)
            self._check(proof, b"gateway", self._nonce + nonce)
            self._trust()
            self.send(encode(WELCOME, 0, self._sign(b"stage", nonce + self._nonce)))
        elif not self._listens and kind == CHALLENGE and isinstance(value, bytes):
            self._challenge = value
            self.send(encode(PROOF, 0, (self._nonce, self._sign(b"gateway", value + self._nonce))))
        elif not self._listens and kind == WELCOME:
            self._check(value, b"stage", self._nonce + self._challenge)
            self._trust()
        else:
            raise MessageError("expected a proof of the key")

    def _trust(self) -> None:
        self.is_trusted = True
        self.trusted()

    def _sign(self, side: bytes, nonces: bytes) -> bytes:
        return hmac.digest(self._key, side + nonces, "sha256")

    def _check(self, proof: Any, side: bytes, nonces: bytes) -> None:
        if not isinstance(proof, bytes) or not hmac.compare_digest(proof, self._sign(side, nonces)):
            raise MessageError("the other side does not know the key")


def _read_pair(value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, bytes) for one in value):
        return value[0], value[1]
    raise MessageError("expected a nonce and a proof")
