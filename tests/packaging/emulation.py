"""Runs programs of another processor on this machine: qemu is registered for them in a namespace of
the program's own, so that the machine stays as it is (binfmt_misc, Linux 6.7 and newer).
"""

import shutil
import subprocess

from ..requirements import require

# offset 0: ELF, 64 bits, little-endian, version 1, any ABI; a program or a library for aarch64
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def arm64_command() -> list[str]:
    """The command that runs the program after it, which is for arm64; skips the test without it."""
    emulator = shutil.which("qemu-aarch64-static")
    require("arm64", emulator is not None, "qemu-user-static is not installed: scripts/roots")
    unshare = shutil.which("unshare", path="/usr/bin:/bin")
    require("arm64", unshare is not None, "no program unshare")
    # F: the kernel opens qemu now, so that it also runs in another root
    rule = f":arm64:M::{_MAGIC}:{_MASK}:{emulator}:F"
    script = (
        "/bin/mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && "
        f"echo '{rule}' >/proc/sys/fs/binfmt_misc/register && "
        'exec "$@"'
    )
    command = [str(unshare), "-Urm", "/bin/sh", "-c", script, "sh"]
    done = subprocess.run([*command, "/bin/true"], capture_output=True, text=True, check=False)
    require("arm64", done.returncode == 0, f"no binfmt_misc in a namespace: {done.stderr.strip()}")
    return command
