"""The server PostgreSQL, with one database and a password."""

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from .process import Server, find

_DATABASES = ("all", "replication")

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Postgres(Server):
    program: ClassVar[str] = "postgres"
    login: ClassVar[str] = "grafana"
    password: ClassVar[str] = "swordfish"
    database: ClassVar[str] = "postgres"

    def owner(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        return {"user": "postgres", "group": "postgres", "extra_groups": []}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password, "utf-8")
        if self.owner():
            shutil.chown(self.folder, "postgres")
            shutil.chown(secret, "postgres")
        subprocess.run(
            [
                *(find("initdb"), "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8"),
                *("--locale=C", f"--username={self.login}", f"--pwfile={secret}", self.data),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **self.owner(),
        )

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",  # of use when the machine stops; a process that is killed loses nothing
            "shared_buffers": "16MB",
            "ssl": "off",
        }
        if self.tls is not None:
            options |= {
                "ssl": "on",
                "ssl_cert_file": str(self.certificate_file),
                "ssl_key_file": str(self.key_file),
            }
        if self.client_ca is not None:
            options["ssl_ca_file"] = str(self.client_ca_file)
        self._write_access_rules()
        given = [word for name in options for word in ("-c", f"{name}={options[name]}")]
        return [self.binary, "-D", str(self.data), *given]

    def _write_access_rules(self) -> None:
        kind = "host" if self.tls is None else "hostssl"
        demands = "" if self.client_ca is None else " clientcert=verify-ca"
        # the authentication of `replication` is not that of `all`
        rules = [f"{kind} {name} all 127.0.0.1/32 scram-sha-256{demands}" for name in _DATABASES]
        (self.data / "pg_hba.conf").write_text("\n".join(rules) + "\n", "utf-8")

    def answers(self) -> bool:
        with self.connect_plain() as connection:  # TLS begins after a request for it
            connection.sendall(_SSL_REQUEST)
            if connection.recv(1) != (b"N" if self.tls is None else b"S"):
                return False
        return "ready to accept connections" in self.log.rpartition("starting PostgreSQL")[2]

    def stop(self, number: int = signal.SIGINT) -> None:
        """With SIGTERM it would wait for its clients to leave."""
        super().stop(number)

    @property
    def dsn(self) -> str:
        return f"postgresql://{self.login}:{self.password}@127.0.0.1:{self.port}/{self.database}"
