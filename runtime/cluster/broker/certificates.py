"""Create a certificate authority and the hub's certificate, for TLS without a third party (needs ``hyps[manager]``).

The keys are elliptic (P-256): an ARM core checks a signature in a few milliseconds. The authority's key signs once and is
then kept with the hub's files. A board gets the authority's certificate in its join file and trusts nothing else.

cryptography is imported inside the functions: a worker runs without it.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyps.runtime.errors import HubError
from hyps.runtime.suggestions import install

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_AUTHORITY_NAME = "HyPS hub authority"
_DAY = datetime.timedelta(days=1)
_VALIDITY = 3650 * _DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The certificates and keys of one hub, as PEM; ``authority_key`` and ``hub_key`` are secret."""

    authority: bytes
    authority_key: bytes
    hub: bytes
    hub_key: bytes


def make_certificates(hosts: Sequence[str]) -> Certificates:
    """Create an authority, and a certificate signed by it for a hub with these host names and IP addresses.

    Raises `HubError` if ``cryptography`` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding
    except ImportError:
        raise HubError(f"certificates need the cryptography library; {install('manager')}") from None
    authority_key, hub_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    return Certificates(
        authority=_authority_certificate(authority_key).public_bytes(Encoding.PEM),
        authority_key=_private_pem(authority_key),
        hub=_hub_certificate(hosts, hub_key, authority_key).public_bytes(Encoding.PEM),
        hub_key=_private_pem(hub_key),
    )


def _authority_certificate(key: EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the authority's certificate, which its own key signs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return (
        _builder(_AUTHORITY_NAME, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _hub_certificate(
    hosts: Sequence[str], key: EllipticCurvePrivateKey, authority_key: EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the hub's certificate, which the authority's key signs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(hosts[0][:64], key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*map(_alternative_name, hosts)]), critical=False)
        .add_extension(authority_id, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(subject: str, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """Return what both certificates have in common: the issuer, the key and the validity."""
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    subject_name, issuer_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (subject, _AUTHORITY_NAME)
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _VALIDITY)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    """Return what a key may do: the authority's signs certificates, the hub's signs handshakes."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())
