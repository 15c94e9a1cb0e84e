"""Compile a source for the GPU that is there with nvrtc, and keep the machine code on disk.

Not through CuPy's own compiling: that adds -ftz=true, and numbers below 1.2e-38 would count as zero.
"""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from harness.errors import PluginError

COMPILE_OPTIONS = ("-std=c++17",)
"""Of nvrtc, beside the architecture and the defines: IEEE arithmetic, denormal numbers included."""


def cubin(nvrtc, source, defines, architecture):
    """The file with a source's machine code. nvrtc: cupy.cuda.nvrtc. architecture: `sm_90`.

    Raises PluginError, with the compiler's words, where it does not compile.
    """
    options = (
        f"-arch={architecture}",
        *COMPILE_OPTIONS,
        *(f"-D{key}={value}" for key, value in defines),
    )
    parts = [source.text, *options, repr(nvrtc.getVersion())]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    file = _folder() / f"{source.name}-{digest[:16]}.cubin"
    if not file.exists():
        code = _compiled(nvrtc, source, options)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as whole:
            whole.write(code)
        os.replace(whole.name, file)  # whole or not at all: another process may be compiling it too
    return file


def _compiled(nvrtc, source, options):
    program = nvrtc.createProgram(source.text, f"{source.name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program) + b"\0"  # CuPy leaves the last byte out, which is a zero
    except nvrtc.NVRTCError as error:
        raise PluginError(
            f"{source.name}.cu does not compile: {' '.join(options)}",
            slug="kernel-not-compiled",
            reason=nvrtc.getProgramLog(program) or error,
        ) from error
    finally:
        nvrtc.destroyProgram(program)


@cache
def _folder():
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "gpt2-harness" / "cubin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="cubin-"))  # compiled anew in each process
