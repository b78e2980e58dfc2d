"""Keeps the client from the network: namespaces that hold nothing but loopback."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess

from client import CannotRun

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def isolated(command, no_namespace):
    """The command, to be run in new namespaces. When it ends, the kernel ends all that it has started."""
    if no_namespace:
        return command
    unshare = ["unshare", "--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    problem = "unshare is missing (it is Linux' own, of util-linux)"
    if shutil.which("unshare"):
        tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return [*unshare, *command]
        problem = tried.stderr.strip()
    raise CannotRun(
        f"no network namespace can be made here: {problem}\nwith --no-namespace it runs all the same; the client "
        "then has a dummy key and the mock's address, but could reach the network"
    )


def check_isolation(no_namespace):
    """Inside: brings loopback up, and makes sure that there is nothing else."""
    if no_namespace:
        return
    interfaces = [name for _, name in socket.if_nameindex()]
    if interfaces != ["lo"]:
        raise CannotRun(f"the namespace holds more than loopback: {', '.join(interfaces)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
