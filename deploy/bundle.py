"""`make bundle`: one archive with everything a box without network needs, for this machine's architecture.

    python -m deploy.bundle [--rehearse]

The archive holds the wheels of the lock file that a gateway or an edge needs, ours, pip's, the systemd units and
`install.sh`. What is needed is worked out from the packages' own metadata, beginning with ours; what is downloaded is
checked against the lock's hashes, and the installation against the hashes of the wheels. `--rehearse` then installs,
runs, replaces and rolls back the bundle in a folder, without any network (see `deploy.rehearsal`).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

HERE: Final = Path(__file__).parent
PROJECT: Final = HERE.parent
DIST: Final = PROJECT / "dist"
ROLES: Final = {"edge": frozenset[str](), "gateway": frozenset({"gateway", "watch"})}
"""What each role installs of our extras. Simulators and test tools never reach a plant."""
TEXTS: Final = ("README.md", "README.zh-CN.md")


def needed(extras: Iterable[str], name: str = "hazardgate") -> set[str]:
    """Return the canonical names of all distributions that `name` with these extras needs here, without itself.

    Read from the metadata of what is installed in this environment, markers judged for this machine.
    """
    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        current, wanted = waiting.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        for text in metadata.requires(current) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                continue
            other = canonicalize_name(requirement.name)
            if other != canonicalize_name(name):
                found.add(other)
            waiting.append((other, frozenset(requirement.extras)))
    return found


def lock_entries(lock: str) -> Iterator[tuple[str, str]]:
    """Yield (canonical name, its lines of the lock file) for every entry in it that is for this machine and Python."""
    for text in re.split(r"\n(?=\w)", lock):
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        if not lines:
            continue
        requirement = Requirement(lines[0].rstrip("\\ "))
        if requirement.marker is None or requirement.marker.evaluate():
            yield canonicalize_name(requirement.name), "\n".join(lines).rstrip("\\ ")


def requirements(wheels: Iterable[Path], names: set[str]) -> str:
    """Return a requirements file that names these wheels of `names` by version and hash."""
    lines = []
    for wheel in sorted(wheels):
        name, version, _, _ = parse_wheel_filename(wheel.name)
        if name in names:
            lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)


def build(destination: Path) -> Path:
    """Build the bundle's folder and its archive below `destination`; return the archive.

    Raises:
        subprocess.CalledProcessError: pip could not download or build; its own words are on stderr.
    """
    version = metadata.version("hazardgate")
    release = f"{version}-{_revision()}"
    folder = destination / f"hazardgate-{release}-{platform.machine()}"
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    names = {role: needed(extras) for role, extras in ROLES.items()}
    _download(set().union(*names.values()), wheels)
    pip = _pip()
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(PROJECT))
    _run(*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), "pip")
    for role, wanted in names.items():
        text = requirements(wheels.glob("*.whl"), wanted | {"hazardgate"})
        (folder / f"requirements-{role}.txt").write_text(text, encoding="ascii")
    for name in ("install.sh", "broker.conf"):
        shutil.copy2(HERE / name, folder)
    for name in TEXTS:
        shutil.copy2(PROJECT / name, folder)
    shutil.copytree(HERE / "systemd", folder / "systemd")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "RELEASE").write_text(f"release={release}\narchitecture={platform.machine()}\npython={python}\n", encoding="ascii")
    _sum(folder)
    archive = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:  # wheels are compressed already
        tar.add(folder, folder.name)
    return archive


def _download(names: set[str], into: Path) -> None:
    entries = dict(lock_entries((PROJECT / "requirements.lock").read_text("utf-8")))
    missing = sorted(names - entries.keys())
    if missing:
        raise SystemExit(f"requirements.lock lacks {', '.join(missing)}: run `make lock`, then `make setup`")
    wanted = into.parent / "requirements-all.txt"
    wanted.write_text("\n".join(entries[name] for name in sorted(names)) + "\n", encoding="utf-8")
    _run(
        *_pip(), "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(into), "-r", str(wanted)
    )
    wanted.unlink()


def _pip() -> list[str]:
    """Return how pip is called here; an environment that uv made has none until now."""
    if importlib.util.find_spec("pip") is None:
        _run(sys.executable, "-m", "ensurepip")
        importlib.invalidate_caches()
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=PROJECT)


def _revision() -> str:
    """Return what tells this release from another of the same version."""
    found = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    return f"g{found.stdout.strip()}" if found.returncode == 0 else "local"


def _sum(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make bundle")
    parser.add_argument("--rehearse", action="store_true", help="install, run, replace and roll it back without network")
    options = parser.parse_args()
    archive = build(DIST)
    print(f"{archive.relative_to(PROJECT)}  {archive.stat().st_size / 1e6:.1f} MB")
    if options.rehearse:
        from deploy.rehearsal import rehearse

        return rehearse(archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
