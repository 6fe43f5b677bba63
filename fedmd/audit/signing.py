"""Ed25519 signatures of the trail's head: who has the public key sees whether the server's key stood behind a record.

After every append a record of the kind `signature` signs the place just before it, and with it, by the chain, all that
came earlier. Cutting the trail off behind an earlier signature leaves it valid: against that only a noted head helps.
"""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from fedmd.audit.chain import Position
from fedmd.audit.entries import Entry
from fedmd.config import ConfigError


class Signer:
    """Signs with the private key in `file` (PEM without a password), which is read once.

    Raises ConfigError when there is no such key.
    """

    def __init__(self, file: Path) -> None:
        try:
            key = load_pem_private_key(file.expanduser().read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"audit.key_file: {file} holds no Ed25519 private key in PEM ({error}).") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"audit.key_file: {file} holds a private key, but none of Ed25519.")
        self._key = key

    def entry(self, head: Position) -> Entry:
        """The record that signs `head`, to be written just after it."""
        return Entry("signature", "signed", content=self._key.sign(_text(head)).hex())


class Checker:
    """Checks signatures against the public key in `file` (PEM). Raises ConfigError when there is none."""

    def __init__(self, file: Path) -> None:
        try:
            key = load_pem_public_key(file.expanduser().read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"--public-key: {file} holds no Ed25519 public key in PEM ({error}).") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"--public-key: {file} holds a public key, but none of Ed25519.")
        self._key = key

    def signs(self, entry: Entry, head: Position) -> bool:
        """Whether `entry` is this key's signature of `head`."""
        try:
            self._key.verify(bytes.fromhex(entry.content or ""), _text(head))
        except (InvalidSignature, ValueError):
            return False
        return True


def _text(head: Position) -> bytes:
    return f"fedmd audit {head.seq} {head.hash}".encode()
