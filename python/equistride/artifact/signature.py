"""Signatures of files by who made them: Ed25519 (RFC 8032), with keys and signatures that openssl makes and checks too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equistride.errors import EquistrideError
from equistride.writing import write

SIZE = 64
"""Bytes of a signature."""
MAKE_KEYS = (
    "make keys with `openssl genpkey -algorithm ed25519 -out KEY.pem` and "
    "`openssl pkey -in KEY.pem -pubout -out PUBLIC.pem`"
)


def signature_file(path: Path) -> Path:
    """Return where the signature of a file lies by default: beside it, with ``.sig`` after its name."""
    return path.with_name(path.name + ".sig")


def _content(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise EquistrideError(f"the {what} {path} does not exist", hint="check the path")
    return path.read_bytes()


def _key(path: Path, private: bool) -> Any:
    """Return an ``Ed25519PrivateKey`` or an ``Ed25519PublicKey`` of cryptography, which is an extra."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError:
        raise EquistrideError(
            "signatures need the package cryptography, which is not installed", hint="pip install 'equistride[sign]'"
        ) from None
    kind = "private" if private else "public"
    content = _content(path, f"{kind} key")
    key: Any
    try:
        key = (
            serialization.load_pem_private_key(content, None) if private else serialization.load_pem_public_key(content)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = str(error).splitlines()[0].split(" (")[0].rstrip(".") if str(error) else type(error).__name__
        raise EquistrideError(
            f"{path} is no {kind} key that can be read ({reason})",
            expected="a key of Ed25519 in PEM, without a password", hint=MAKE_KEYS,
        ) from None  # fmt: skip
    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise EquistrideError(
            f"{path} is a key of another kind", expected="Ed25519", found=type(key).__name__.strip("_"), hint=MAKE_KEYS
        )
    return key


def sign(path: Path, private_key: Path, signature: Path | None = None) -> Path:
    """Sign the bytes of a file.

    Parameters
    ----------
    path
        The file, an artifact or any other.
    private_key
        Ed25519 key in PEM, without a password.
    signature
        Where the 64 bytes go; :func:`signature_file` by default.

    Returns
    -------
    Path
        The signature.

    Raises
    ------
    EquistrideError
        Where a file is missing, or the key is of another kind.
    """
    target = signature_file(path) if signature is None else signature
    content = _content(path, "file")
    write(target, _key(private_key, True).sign(content))
    return target


def verify(path: Path, public_key: Path, signature: Path | None = None) -> None:
    """Check that a file is the one that the owner of a key signed; parameters as :func:`sign`, with the public key.

    Raises
    ------
    EquistrideError
        Where it is not, a file is missing, or the key is of another kind.
    """
    lies = signature_file(path) if signature is None else signature
    key, content = _key(public_key, False), _content(path, "file")
    given = _content(lies, "signature")
    if len(given) != SIZE:
        raise EquistrideError(f"{lies} is no signature", expected=f"{SIZE} bytes", found=len(given))
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(given, content)
    except InvalidSignature:
        raise EquistrideError(
            f"{path} is not what was signed: {lies} does not belong to it and to the key {public_key}",
            hint="take the file and its signature again from whoever made them, and the key by another way",
        ) from None
