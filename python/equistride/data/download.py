"""Published data sets: where they are, whose they are, and a download that checks what came."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from equistride.errors import EquistrideError
from equistride.writing import whole_file

Progress = Callable[[int, int | None], None]
"""Called with the bytes read and, where the server says it, the bytes in all."""


@dataclass(frozen=True)
class Source:
    """A published file.

    ``md5`` is that which the archive publishes; None where it publishes none. MD17's files carry a fingerprint of their own
    arrays instead, which :func:`equistride.data.md17.check_fingerprint` compares.
    """

    url: str
    file: str
    citation: str
    md5: str | None = None


_MD17 = "Chmiela et al., Sci. Adv. 3, e1603015 (2017); sgdml.org"
_RMD17 = "Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020); figshare 12672038, CC BY 4.0"
_ISO17 = "Schuett et al., Nat. Commun. 8, 13890 (2017); quantum-machine.org"
_MD17_FILES = {"aspirin": "aspirin", "benzene": "benzene2017", "ethanol": "ethanol", "malonaldehyde": "malonaldehyde",
               "naphthalene": "naphthalene", "salicylic": "salicylic", "toluene": "toluene", "uracil": "uracil"}  # fmt: skip
_RMD17_FILES = {
    "aspirin": (62265757, "17fd6fb69066888613f7e16b358a7553"),
    "azobenzene": (62265754, "be79df918468eb3579aa73a0becf7390"),
    "benzene": (62265739, "18c9242bc90fbf28215f6dd81e650f16"),
    "ethanol": (62265733, "eb837fb8deb27d4e0d52f71a03aff776"),
    "malonaldehyde": (62265736, "cdc1d70c0c34062ddde6e5071eb6fe21"),
    "naphthalene": (62265751, "0efba19c9907e3852318b1e6008b3b9e"),
    "paracetamol": (62265760, "ba10784f7b67635427085f6d7ec2dd97"),
    "salicylic": (62265748, "900fedf242da438400fa4293348d7dd1"),
    "toluene": (62265742, "0f2913d51f8149c90ab28d697a076f64"),
    "uracil": (62265745, "992a4479c28a07e0cce6da964805be31"),
}
SOURCES: dict[str, Source] = {
    **{f"md17/{name}": Source(f"http://www.quantum-machine.org/gdml/data/npz/md17_{file}.npz", f"md17_{file}.npz", _MD17)
       for name, file in _MD17_FILES.items()},
    **{f"rmd17/{name}": Source(f"https://ndownloader.figshare.com/files/{number}", f"rmd17_{name}.npz", _RMD17, md5)
       for name, (number, md5) in _RMD17_FILES.items()},
    "iso17": Source("http://www.quantum-machine.org/datasets/iso17.tar.gz", "iso17.tar.gz", _ISO17),
}  # fmt: skip
"""Data sets by name: ``md17/ethanol``, ``rmd17/aspirin``, ``iso17``."""


def known_source(name: str) -> Source:
    """Return a published file by its name; the error lists what there is."""
    if name not in SOURCES:
        raise EquistrideError(f"there is no published data set {name!r}", expected=", ".join(SOURCES), found=name)
    return SOURCES[name]


def _digest(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check(found: str, source: Source, path: Path) -> None:
    if source.md5 is not None and found != source.md5:
        raise EquistrideError(
            f"{path} is not the published file {source.file}", expected=f"MD5 {source.md5}", found=f"MD5 {found}",
            hint="delete it and download it again; if that fails too, the file at the source has changed",
        )  # fmt: skip


def download(source: Source, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a published file into a folder and return its path; one that is there already is checked and kept.

    The file appears whole and checked, or not at all.

    Raises
    ------
    EquistrideError
        Where the source cannot be reached or breaks off, or the file has another MD5 than is published.
    """
    path = folder / source.file
    if path.is_file():
        _check(_digest(path), source, path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(source.url, timeout=60) as answer, whole_file(path) as partial:
            length = answer.headers.get("Content-Length")
            total, done = None if length is None else int(length), 0
            with partial.open("wb") as f:
                while block := answer.read(1 << 20):
                    f.write(block)
                    digest.update(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
            if total is not None and done != total:
                raise EquistrideError(f"{source.url} broke off", expected=f"{total} bytes", found=f"{done} bytes")
            _check(digest.hexdigest(), source, path)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise EquistrideError(
            f"{source.url} cannot be fetched ({error})", hint=f"fetch it by other means and put it at {path}"
        ) from error
    return path
