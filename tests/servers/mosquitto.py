"""The MQTT broker Mosquitto, with one user."""

import subprocess
from typing import ClassVar

from .process import Server, find

_CONNECT = bytes.fromhex("100c00044d515454040200000000")
"""An MQTT 3.1.1 CONNECT without a client id, user or password."""


class Mosquitto(Server):
    program: ClassVar[str] = "mosquitto"
    login: ClassVar[str] = "grafana"
    password: ClassVar[str] = "swordfish"
    is_persistent: ClassVar[bool] = True
    """Whether retained messages and sessions survive a restart: each change writes all of them."""

    def prepare(self) -> None:
        passwords = self.folder / "passwords"
        passwords.touch(0o600)
        subprocess.run(
            [find("mosquitto_passwd"), "-b", passwords, self.login, self.password], check=True
        )

    def command(self) -> list[str]:
        (self.folder / "mosquitto.conf").write_text("\n".join(self._lines()) + "\n", "utf-8")
        return [self.binary, "-c", str(self.folder / "mosquitto.conf")]

    def _lines(self) -> list[str]:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {self.folder}/passwords",
            "user root",  # of use to root only: else Mosquitto becomes a user who cannot write here
        ]
        if self.is_persistent:
            lines += [
                "persistence true",
                f"persistence_location {self.folder}/",
                "autosave_on_changes true",
                "autosave_interval 1",
            ]
        if self.tls is not None:
            lines += [f"certfile {self.certificate_file}", f"keyfile {self.key_file}"]
        if self.client_ca is not None:
            lines += [f"cafile {self.client_ca_file}", "require_certificate true"]
        return lines

    def answers(self) -> bool:
        with self.connect() as connection:
            connection.sendall(_CONNECT)
            return connection.recv(1) != b""  # a refusal: there is no password in it
