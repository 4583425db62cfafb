"""A plugin's process shows no secret: what it prints and logs, and how it ends."""

import sys

import pytest

from aiostream_ds.testing.process import start_process

VALUE = "s3cr3t-of-the-broker"

PLUGIN = """
import asyncio, atexit, ctypes, faulthandler, logging, os, subprocess, sys, threading, warnings
import traceback
import aiostream_ds as ds

logging.getLogger().setLevel(logging.DEBUG)

class Login(ds.Settings):
    password: ds.Secret = ds.secret()

class Noisy:
    def __init__(self, text):
        self.text = text

    def __del__(self):
        raise ValueError(self.text)

async def fail(text):
    raise ValueError(text)

def raise_it(text):
    raise ValueError(text)

class Leaking(ds.DataSource[Login]):
    @ds.resource("leak/{way}")
    async def leak(self, way: str):
        text = self.settings.password.reveal()
        await getattr(self, way)(text)
        return {}

    async def prints(self, text):
        print("printed", text)
        print("half of it", text[:8], end="", flush=True)
        print(text[8:], flush=True)
        os.write(1, f"written to 1 {text}\\n".encode())
        os.write(2, f"written to 2 {text}\\n".encode())
        subprocess.run(["echo", "of a child", text])
        ctypes.CDLL(None).puts(f"of a C library {text}".encode())
        ctypes.CDLL(None).fflush(None)

    async def logs(self, text):
        for level in (10, 20, 30, 40):
            logging.getLogger("client").log(level, "logged %s", text, extra={"url": text})
        handler = logging.StreamHandler()
        own = logging.getLogger("own")
        own.addHandler(handler)
        own.warning("through a handler %s", text)
        warnings.warn(f"warned {text}")
        try:
            raise_it(text)
        except ValueError:
            logging.getLogger("client").exception("failed")
            traceback.print_exc()

    async def raises(self, text):
        thread = threading.Thread(target=raise_it, args=(text,), name=text)
        thread.start()
        thread.join()
        task = asyncio.create_task(fail(text))
        await asyncio.sleep(0.01)
        del task
        asyncio.get_running_loop().call_soon(raise_it, text)
        Noisy(text)
        asyncio.get_running_loop().call_exception_handler({"message": text})
        await asyncio.sleep(0.01)
        raise ValueError(text)

    async def at_exit(self, text):
        atexit.register(print, "at exit", text)
        atexit.register(raise_it, text)
        sys.kept = Noisy(text)
        thread = threading.Timer(0.3, raise_it, (text,))
        thread.start()

    async def aborts(self, text):
        print("before the end", text, flush=True)
        os.write(2, f"last words {text}".encode())
        os.abort()

    async def exits(self, text):
        os.write(2, f"last words {text}\\n".encode())
        os._exit(3)

    async def crashes(self, text):
        faulthandler._sigsegv()

ds.serve(Leaking)
"""

WAYS = {
    "prints": ["printed ***", "half of it ***", "written to 1 ***", "written to 2 ***"],
    "logs": ["logged ***", "through a handler ***", "warned ***", "ValueError: ***"],
    "raises": ["ValueError: ***"],
    "at_exit": [],  # the runtime ends without these functions
    "aborts": ["Fatal Python error: Aborted"],
    "exits": [],
    "crashes": ["Fatal Python error: Segmentation fault"],
}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's C library")
@pytest.mark.parametrize("way", WAYS)
async def test_no_output_of_a_process_shows_a_secret(tmp_path, way):
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    async with start_process([sys.executable, str(file)]) as process:
        async with process.grafana({}, {"password": VALUE}) as grafana:
            try:
                answer = await grafana.resource(f"leak/{way}")
            except Exception as error:
                shown = repr(error)
            else:
                shown = str(answer)
    output = process.stderr
    for text in (shown, output):
        assert not {VALUE[at : at + 12] for at in range(len(VALUE) - 11)} & parts(text), text
    for expected in WAYS[way]:
        assert expected in output


def parts(text):
    return {text[at : at + 12] for at in range(len(text) - 11)}
