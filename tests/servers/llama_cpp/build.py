"""Build llama.cpp's server from a source package of the index: `python -m tests.servers.llama_cpp.build`.

It needs a C++ compiler, CMake and Ninja, and takes minutes. llama.cpp publishes no package of its own there; the
source is the one that llama-cpp-python carries.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import llguidance

from tests.bench.subjects import PEERS

PACKAGE: Final = "llama-cpp-python"
PACKAGE_VERSION: Final = "0.3.36"
ENVIRONMENT: Final = "engine_llama_server"
# What its build information says: a number and a name of the source, which is no repository here.
VERSION: Final = f"b0-py{PACKAGE_VERSION}"
_OFF: Final = ("TESTS", "EXAMPLES", "UI", "APP")


def build() -> None:
    """Raises: CalledProcessError, which says why on standard error."""
    folder = PEERS / ENVIRONMENT
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="confide-llama-") as name:
        room = Path(name)
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE)
        subprocess.run((*pip, "-d", name, f"{PACKAGE}=={PACKAGE_VERSION}"), check=True)
        (archive,) = room.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(room, filter="data")
        source = next(room.glob("*/vendor/llama.cpp"))
        subprocess.run(("cmake", "-G", "Ninja", "-S", str(source), "-B", f"{name}/build", *_options()), check=True)
        subprocess.run(("ninja", "-C", f"{name}/build", "llama-server"), check=True)
        shutil.copy2(room / "build" / "bin" / "llama-server", folder / "bin")
    (folder / ".ready").touch()


def _options() -> list[str]:
    (library,) = Path(llguidance.__file__).parent.glob("_lib*.so")
    config = sysconfig.get_config_vars()
    python = Path(config["LIBDIR"], config.get("MULTIARCH", ""), config["LDLIBRARY"])
    python = python if python.exists() else Path(config["LIBDIR"], config["LDLIBRARY"])
    number, _, commit = VERSION.removeprefix("b").partition("-")
    return [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_CURL=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_BUILD_SERVER=ON",
        *(f"-DLLAMA_BUILD_{name}=OFF" for name in _OFF),
        f"-DLLAMA_BUILD_NUMBER={number}",
        f"-DLLAMA_BUILD_COMMIT={commit}",
        f"-DCMAKE_PROJECT_INCLUDE={Path(__file__).parent / 'llguidance.cmake'}",
        f"-DLLGUIDANCE={library}",
        f"-DLLGUIDANCE_PYTHON={python}",
    ]


if __name__ == "__main__":
    build()
