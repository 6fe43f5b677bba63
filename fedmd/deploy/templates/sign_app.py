#!/usr/bin/env python3
"""Pack an app into the bundle that nodes will run, and sign it as its publisher: python sign_app.py [FOLDER]

Without FOLDER it is app/ beside this file.

    authority/publisher    signs bundles and nothing else: stays with ca.key, off the server
    publisher.yaml         its public half; a node that has it runs bundles with this signature and no others
    bundle/                the bundle and its signature; superlink.sh offers it to `flwr run @fedmd/guarded`
Run it again after a change of the app, and start SuperLink again. Signatures do not expire: to withdraw a bundle,
remove authority/publisher and publisher.yaml, run this again, and give every node the new publisher.yaml.
"""

import base64
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from flwr.cli.build import build_fab_from_disk

HERE = Path(__file__).resolve().parent
KEY, PINNED, BUNDLE = HERE / "authority/publisher", HERE / "publisher.yaml", HERE / "bundle"


def main(app: Path) -> None:
    if not KEY.exists() and PINNED.exists():
        sys.exit(f"{KEY} is not here: bring it back from where you keep it.")
    if not KEY.exists():
        make_key()
    key = serialization.load_ssh_private_key(KEY.read_bytes(), password=None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    name = "fpk_" + hashlib.sha256(public.encode()).hexdigest()[:16]
    PINNED.write_text(f"{name}: {public}\n")

    bundle, signed_at = build_fab_from_disk(app), int(time.time())
    message = signed_at.to_bytes(8, "big") + hashlib.sha256(bundle).digest()  # what Flower's SuperNode verifies
    signature = base64.urlsafe_b64encode(key.sign(message)).decode().rstrip("=")
    BUNDLE.mkdir(exist_ok=True)
    (BUNDLE / "app.fab").write_bytes(bundle)
    (BUNDLE / "signature.json").write_text(json.dumps({name: {"signature": signature, "signed_at": signed_at}}) + "\n")
    print(f"SHA-256 {hashlib.sha256(bundle).hexdigest()} signed by {public}")


def make_key() -> None:
    KEY.parent.mkdir(mode=0o700, exist_ok=True)
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with os.fdopen(os.open(KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


if __name__ == "__main__":
    main(Path(*sys.argv[1:]) if sys.argv[1:] else HERE / "app")
