#!/usr/bin/env python3
"""Make a key pair for every node and the register of who may speak for whom: python node_keys.py

Every nodes/NAME.toml gets keys/NAME (private: goes to that node and nowhere else) and keys/NAME.pub. Existing keys are
kept. register.json maps each key's fingerprint (as `ssh-keygen -lf keys/NAME.pub` prints it) to the client the node
answers for; the server reads it (federation.register_file) and refuses a node that claims anybody else.
A node's owner may also make the pair where the node is (`ssh-keygen -t ecdsa -b 384 -N "" -f NAME`) and send you the
.pub alone: put it into keys/ and run this again. Needs the package `cryptography`, which comes with Flower.
"""

import base64
import hashlib
import json
import os
import tomllib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
KEYS = HERE / "keys"


def main() -> None:
    KEYS.mkdir(mode=0o700, exist_ok=True)
    register = {}
    for node in sorted((HERE / "nodes").glob("*.toml")):
        public = KEYS / f"{node.stem}.pub"
        if not public.exists():
            make_pair(KEYS / node.stem, public)
        client = tomllib.loads(node.read_text())["client"]
        register[fingerprint(public.read_bytes())] = {"name": node.stem, "clients": [client]}
    (HERE / "register.json").write_text(json.dumps(register, indent=2) + "\n")
    print(f"{len(register)} keys in {KEYS}, who may speak for whom in {HERE / 'register.json'}")


def make_pair(private: Path, public: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    text = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public.write_bytes(text + f" {private.name}\n".encode())


def fingerprint(public: bytes) -> str:
    blob = base64.b64decode(public.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


if __name__ == "__main__":
    main()
