"""TLS as client: ≥ 1.2, the peer's certificate and host name always checked (PS3.15 B.12)."""

from __future__ import annotations

import ssl

from config.destinations import DestinationTls
from dicom_io.errors import PeerUnreachable


def client_context(tls: DestinationTls) -> ssl.SSLContext:
    """How a destination is to be trusted, and by which certificate it knows us.

    Raises
    ------
    PeerUnreachable
        tls-files: a file cannot be read or is no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise PeerUnreachable(f"TLS files of the destination: {error.strerror}", code="tls-files") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
