#!/usr/bin/env python3
"""Make a certificate authority and the server's certificates: python certificates.py [NAME_OR_ADDRESS ...]

Names and addresses are those under which nodes reach the server; without any, what `fedmd deploy init` was told.
    authority/ca.key                   signs certificates and nothing else: move authority/ off the server
    certificates/ca.pem                public; every node gets it
    certificates/server.pem, .key      what the proxy shows to nodes
    certificates/superlink.pem, .key   what SuperLink shows to the proxy and to `flwr`, for loopback only
What is there already is kept. With authority/ brought back for the moment:
    --renew          new server.pem and superlink.pem, for the names they have, or those given; then restart proxy and
                     SuperLink. Nodes notice nothing.
    --new-authority  a new ca.key; ca.pem holds both authorities. Give every node the new ca.pem and restart it, one
                     after the other and in your own time; then --renew; and when no node has the old ca.pem any more,
    --retire         ca.pem holds the new authority alone.
Needs the package `cryptography`, which comes with Flower.
"""

import argparse
import datetime
import ipaddress
import os
import secrets
import sys
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).resolve().parent
AUTHORITY, FOLDER = HERE / "authority", HERE / "certificates"
CA = FOLDER / "ca.pem"
LOOPBACK = ["localhost", "127.0.0.1"]
CA_DAYS, SERVER_DAYS = 3650, 397


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="*", metavar="NAME_OR_ADDRESS")
    steps = parser.add_mutually_exclusive_group()
    for step in ("--renew", "--new-authority", "--retire"):
        steps.add_argument(step, action="store_true")
    told = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if told.retire:
        retire()
    elif told.new_authority:
        old = present().public_bytes(serialization.Encoding.PEM)
        make_authority()
        CA.write_bytes(CA.read_bytes() + old)
        print(f"{CA} holds the new authority and the old one: give it to every node, then --renew")
    else:
        if not CA.exists():
            make_authority()
        hosts = told.hosts or names_in("server") or ["{{ host }}"]
        for name, names in (("server", hosts), ("superlink", LOOPBACK)):
            if told.renew or not (FOLDER / f"{name}.pem").exists():
                make_certificate(name, names)
        print(f"certificates for {', '.join(hosts)} in {FOLDER}; move {AUTHORITY} to another machine")


def present() -> x509.Certificate:
    """The authority that signs: the first in ca.pem."""
    try:
        return x509.load_pem_x509_certificate(CA.read_bytes())
    except FileNotFoundError:
        sys.exit(f"{CA} is not here: run this without options first.")


def retire() -> None:
    ca = present()
    for name in ("server", "superlink"):
        try:
            x509.load_pem_x509_certificate((FOLDER / f"{name}.pem").read_bytes()).verify_directly_issued_by(ca)
        except (ValueError, InvalidSignature):
            sys.exit(f"{name}.pem is still signed by the old authority: --renew comes first.")
    CA.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    print(f"{CA} holds the new authority alone")


def names_in(name: str) -> list[str]:
    """What the certificate that is there was made for."""
    if not (FOLDER / f"{name}.pem").exists():
        return []
    found = x509.load_pem_x509_certificate((FOLDER / f"{name}.pem").read_bytes())
    return [str(each.value) for each in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def make_authority() -> None:
    AUTHORITY.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedmd federation CA {secrets.token_hex(4)}")])
    ca = (
        certificate(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    save(AUTHORITY / "ca.key", key, CA, ca)


def make_certificate(name: str, hosts: list[str]) -> None:
    try:
        pem = (AUTHORITY / "ca.key").read_bytes()
    except FileNotFoundError:
        sys.exit(f"{AUTHORITY / 'ca.key'} is not here: bring it back from where you keep it.")
    ca = present()
    ca_key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    signed = (
        certificate(subject, ca.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([alternative(host) for host in hosts]), critical=False)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    save(FOLDER / f"{name}.key", key, FOLDER / f"{name}.pem", signed)


def certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def usage(**granted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: granted.get(name, False) for name in names})


def alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def save(private: Path, key: ec.EllipticCurvePrivateKey, public: Path, signed: x509.Certificate) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    main()
