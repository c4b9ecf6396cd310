"""Signatures: ours and openssl's are the same; another file, signature or key is refused in one sentence."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from typer.testing import CliRunner

from equistride.artifact.signature import sign, verify
from equistride.cli.main import app
from equistride.errors import EquistrideError


def keys(folder: Path, name: str, kind: type = Ed25519PrivateKey) -> tuple[Path, Path]:
    key = kind.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signature_and_what_it_does_not_cover(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(bytes(range(256)) * 40)
    private, public = keys(tmp_path, "mine")
    _, other = keys(tmp_path, "other")
    run = CliRunner().invoke
    assert run(app, ["sign", str(file), "--key", str(private)]).exit_code == 0
    done = run(app, ["verify", str(file), "--key", str(public)])
    assert done.exit_code == 0
    assert "signed with the key" in done.output
    with pytest.raises(EquistrideError, match=r"model.pt is not what was signed: .*model.pt.sig does not belong"):
        verify(file, other)
    for place in (0, 5000, 10239):
        data = bytearray(file.read_bytes())
        data[place] ^= 1
        (tmp_path / "edited.pt").write_bytes(data)
        with pytest.raises(EquistrideError, match="is not what was signed"):
            verify(tmp_path / "edited.pt", public, tmp_path / "model.pt.sig")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
def test_openssl_says_the_same(tmp_path: Path) -> None:
    file, private, public = tmp_path / "a.bin", tmp_path / "key.pem", tmp_path / "public.pem"
    file.write_bytes(b"what was made")
    openssl = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)  # noqa: E731
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    made = sign(file, private)
    openssl("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", file, "-sigfile", made)
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", file, "-out", tmp_path / "other.sig")
    verify(file, public, tmp_path / "other.sig")


def test_what_is_no_key_or_no_signature(tmp_path: Path) -> None:
    file, (private, public) = tmp_path / "a.bin", keys(tmp_path, "mine")
    file.write_bytes(b"content")
    with pytest.raises(EquistrideError, match=r"the signature .*a.bin.sig does not exist"):
        verify(file, public)
    (tmp_path / "a.bin.sig").write_bytes(b"short")
    with pytest.raises(EquistrideError, match="is no signature; expected 64 bytes; found 5"):
        verify(file, public)
    with pytest.raises(EquistrideError, match="is no private key that can be read"):
        sign(file, public)
    with pytest.raises(EquistrideError, match="is no public key that can be read"):
        verify(file, private)
    foreign, _ = keys(tmp_path, "foreign", X25519PrivateKey)
    with pytest.raises(EquistrideError, match="is a key of another kind; expected Ed25519; found X25519PrivateKey"):
        sign(file, foreign)
    with pytest.raises(EquistrideError, match=r"the file .*none.pt does not exist"):
        sign(tmp_path / "none.pt", private)
