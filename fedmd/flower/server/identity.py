"""Who a node is: the key that SuperLink has checked on each of its messages, and the clients that key may speak for."""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.serverapp import Grid

from fedmd.config import ConfigError

Register = dict[str, frozenset[int]]


def fingerprints(grid: Grid) -> dict[int, str]:
    """The key fingerprint of every connected node, by node id, as `ssh-keygen -l` prints it.

    With --enable-supernode-auth SuperLink lets only registered keys in and verifies a signature on every request.
    """
    return {node.node_id: fingerprint(node.public_key) for node in grid.get_nodes() if node.public_key}


def fingerprint(public_key: bytes) -> str:
    """`SHA256:...` of a PEM public key: the SHA-256 of its OpenSSH form, base64 without padding (RFC 4253, 6.6)."""
    blob = load_pem_public_key(public_key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")


def read_register(path: str) -> Register:
    """The clients each fingerprint may speak for. Raises ConfigError naming federation.register_file."""
    try:
        entries = json.loads(Path(path).expanduser().read_text())
        return {key: frozenset(int(client) for client in entry["clients"]) for key, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"federation.register_file: {path} must be a JSON file that maps key fingerprints to "
            f'{{"clients": [...]}} ({error}).'
        ) from error
