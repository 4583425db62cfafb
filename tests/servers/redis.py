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
        if self.tls is not None:
            # Redis demands a CA, also without clients' certificates
            ca = self.certificate_file if self.client_ca is None else self.client_ca_file
            options |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": str(self.certificate_file),
                "tls-key-file": str(self.key_file),
                "tls-ca-cert-file": str(ca),
                "tls-auth-clients": "yes" if self.client_ca else "no",
            }
        return [self.binary, *(word for name in options for word in (f"--{name}", options[name]))]

    def answers(self) -> bool:
        with self.connect() as connection:
            connection.sendall(b"AUTH %s\r\n" % self.password.encode())
            return connection.recv(16).startswith(b"+OK")

    @property
    def url(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://:{self.password}@127.0.0.1:{self.port}"
