#!/usr/bin/env python3
"""Make a certificate authority and the server's certificate: python certificates.py [NAME_OR_ADDRESS ...]

Names and addresses are those under which clients reach the server; without any, the one in flower/config.toml. What
is already in certificates/ is kept: to renew the server's certificate, delete server.pem and run this again. ca.key
signs new certificates and nothing else: keep it offline. Clients get ca.pem, which is public.
Needs the package `cryptography`, which comes with Flower.
"""

import datetime
import ipaddress
import os
import sys
import tomllib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "certificates"
CA_DAYS, SERVER_DAYS = 3650, 397


def main(hosts: list[str]) -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    if not (FOLDER / "ca.pem").exists():
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmd federation CA")])
        ca = (
            certificate(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA384())
        )
        save("ca", key, ca)
    if not (FOLDER / "server.pem").exists():
        ca = x509.load_pem_x509_certificate((FOLDER / "ca.pem").read_bytes())
        ca_key = serialization.load_pem_private_key((FOLDER / "ca.key").read_bytes(), password=None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        server = (
            certificate(subject, ca.subject, key.public_key(), SERVER_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([alternative(host) for host in hosts]), critical=False)
            .add_extension(usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(ca_key, hashes.SHA384())
        )
        save("server", key, server)
    print(f"certificates for {', '.join(hosts)} in {FOLDER}")


def configured_host() -> str:
    address = tomllib.loads((HERE / "flower/config.toml").read_text())["superlink"]["federation"]["address"]
    return str(address).rpartition(":")[0]


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


def save(name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(FOLDER / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    (FOLDER / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    main(sys.argv[1:] or [configured_host()])
