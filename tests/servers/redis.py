"""The server Redis, with a password, whose data survives `kill`."""

from typing import ClassVar

from .process import Server


class Redis(Server):
    program: ClassVar[str] = "redis-server"
    password: ClassVar[str] = "swordfish"

    def command(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "no",  # a process that is killed loses nothing without it
            "save": "",
        }
        return [self.binary, *(word for name in options for word in (f"--{name}", options[name]))]

    def answers(self) -> bool:
        with self.connect() as connection:
            connection.sendall(b"AUTH %s\r\n" % self.password.encode())
            return connection.recv(16).startswith(b"+OK")

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}"
